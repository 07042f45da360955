"""Other WebSocket servers under the same load: each relays /publish to every /subscribe, and echoes on /echo.

One module a peer, each started with `python -m benchmarks.peers.<name> --port N`; it prints the port it listens on.
They know no rtc.v1: what they cost is what relaying costs in that library, without any of a messaging server's work.
"""
