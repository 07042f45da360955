"""Nothing of this module is visible from Python; `subscriptions.pxd` is its contract."""
