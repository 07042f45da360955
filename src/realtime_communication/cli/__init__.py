"""The command line: serve, look into the configuration, make credentials."""
