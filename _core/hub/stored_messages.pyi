"""Nothing of this module is visible from Python; `stored_messages.pxd` is its contract."""
