"""Sockets and clocks: the only part of the data plane that makes system calls."""
