"""What the methods share around TRL's trainers."""
