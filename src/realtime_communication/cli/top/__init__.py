"""`rtc top`: a running server at a glance."""
