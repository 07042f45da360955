"""Nothing of this module is visible from Python; `direct_messages.pxd` is its contract."""
