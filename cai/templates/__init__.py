"""Jinja templates: load them, render them in a sandbox, escape untrusted text."""
