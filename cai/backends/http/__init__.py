"""The HTTP client of the remote backends: connections, retries, throttling, batch APIs."""
