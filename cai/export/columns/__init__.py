"""Columns that several export formats share."""
