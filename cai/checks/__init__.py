"""Plug-ins: what can be wrong with a set of preference pairs. Each file here ends in a CHECK record."""
