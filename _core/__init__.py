"""The compiled data plane: bytes in, bytes out; it imports nothing of the packages above it."""
