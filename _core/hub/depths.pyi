"""Nothing of this module is visible from Python; `depths.pxd` is its contract."""
