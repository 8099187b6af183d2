"""Runs the checks over a set of preference pairs and collects their findings."""
