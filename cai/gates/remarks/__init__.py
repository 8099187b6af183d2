"""Finds what a model writes about its revision beside the revision itself."""
