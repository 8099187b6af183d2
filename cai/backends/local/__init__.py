"""The in-process engine: loads a language model and answers many requests at once on it."""
