"""The steps of the method: rows and models in, rows out. No files, no printing, no global state."""
