"""The subjects of an audit: pairs, rewards, policies, judges and runs, and how they are opened."""
