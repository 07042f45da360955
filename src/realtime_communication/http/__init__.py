"""The HTTP application beside the WebSocket on the main port."""
