"""Limits, mailboxes, topics, users and sessions: who gets which bytes."""
