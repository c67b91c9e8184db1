"""The passes that bring a model to the canonical form, one a file, in the order `normalise` lists them."""
