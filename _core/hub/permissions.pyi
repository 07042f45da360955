"""Nothing of this module is visible from Python; `permissions.pxd` is its contract."""
