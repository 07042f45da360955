"""Nothing of this module is visible from Python; `idempotency.pxd` is its contract."""
