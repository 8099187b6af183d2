"""Ways to reach a model. Each file directly in this folder is a plug-in that ends in `BACKEND = Backend(...)`."""
