"""Consumers that are full, told between workers."""
