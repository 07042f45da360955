"""Putting the parts together: one worker process, from its listening sockets to its end."""
