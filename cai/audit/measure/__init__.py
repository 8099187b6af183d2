"""Shared by the probes: findings with intervals, edits of answers, planted cases."""
