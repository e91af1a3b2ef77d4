"""The only importer of Ray: connecting, the pool of supervised actors, Ray Train and Ray Tune."""
