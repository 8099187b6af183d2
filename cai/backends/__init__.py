"""Workshop: ways to reach a model. Each public file ends in `BACKEND = Backend(...)`."""
