"""Who is calling: credentials in, an `Identity` out. Knows nothing of HTTP applications or the hub."""
