"""Servers as processes, and what the tests need to talk to them."""
