"""Nothing of this module is visible from Python; `history.pxd` is its contract."""
