"""What belongs to a session, as bytes; nothing of it is for Python."""
