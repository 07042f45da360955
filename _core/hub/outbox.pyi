"""Nothing of this module is visible from Python; `outbox.pxd` is its contract."""
