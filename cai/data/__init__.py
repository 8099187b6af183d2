"""Rows in: data files, messages, prompts, preference pairs, training rows, splits."""
