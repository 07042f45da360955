"""Memory, tables and counters that every part of the data plane stands on."""
