"""Nothing of this module is visible from Python; `requests.pxd` is its contract."""
