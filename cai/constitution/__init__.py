"""A constitution file: load it, check it, draw principles from it, convert it from other formats."""
