"""What probes share: findings with intervals, edits of answers, planted cases."""
