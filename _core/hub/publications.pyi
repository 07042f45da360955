"""Nothing of this module is visible from Python; `publications.pxd` is its contract."""
