"""Applies the gates of a recipe to a text."""
