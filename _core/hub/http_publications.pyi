"""Nothing of this module is visible from Python; `http_publications.pxd` is its contract."""
