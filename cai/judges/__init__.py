"""Ways to have a model say which of two answers is better: one file each, ending in a JUDGE record."""
