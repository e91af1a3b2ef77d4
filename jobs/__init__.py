"""One module per verb of the `noisyactions` command: a config comes in, files go out."""
