"""One training from rows to a folder, and scoring a file with trained reward models."""
