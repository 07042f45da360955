"""Nothing of this module is visible from Python; `backlog.pxd` is its contract."""
