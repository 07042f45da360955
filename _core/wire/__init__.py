"""The formats on the wire: HTTP heads, WebSocket frames, compression, rtc.v1 envelopes."""
