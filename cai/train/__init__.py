"""Training methods. Each file is one method and ends in METHOD."""
