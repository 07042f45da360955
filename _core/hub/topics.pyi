"""Nothing of this module is visible from Python; `topics.pxd` is its contract."""
