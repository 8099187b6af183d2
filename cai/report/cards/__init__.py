"""Markdown cards: of a dataset, of a judge, of a trained model."""
