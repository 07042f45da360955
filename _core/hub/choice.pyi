"""Which sessions go when a worker has more than others; nothing of it is for Python."""
