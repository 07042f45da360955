"""The limits of rates; nothing of it is for Python."""
