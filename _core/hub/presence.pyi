"""Nothing of this module is visible from Python; `presence.pxd` is its contract."""
