"""What is audited: pairs, rewards, policies and runs, and how they are opened."""
