"""Nothing of this module is visible from Python; `scatter.pxd` is its contract."""
