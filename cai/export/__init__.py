"""Plug-ins: formats of rows that trainers read. Each file ends in `FORMAT = Format(...)`."""
