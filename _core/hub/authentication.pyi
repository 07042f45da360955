"""Nothing of this module is visible from Python; `authentication.pxd` is its contract."""
