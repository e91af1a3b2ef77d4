"""A small Flickr of our own: a seeded world of noisy videos, and a server that speaks its REST dialect."""
