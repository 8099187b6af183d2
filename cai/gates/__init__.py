"""Plug-ins: what may not pass from one step to the next. Each file here ends in a GATE record."""
