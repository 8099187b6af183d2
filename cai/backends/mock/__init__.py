"""A small server that speaks OpenAI's and Anthropic's API, for trying recipes without a key and for testing clients."""
