"""`rtc.v1` in plain Python: the server this project replaces, kept as the baseline of every comparison.

asyncio (uvloop), `websockets`, `msgspec` and PyJWT, one process, everything in memory. It is written the way a good
Python developer writes such a server, and speaks the same protocol word for word, so the black-box protocol
tests run against both.
"""
