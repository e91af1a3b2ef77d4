"""One module per benchmark of `noisyactions bench`: a Config, and `measure`, which takes ratios side by side."""
