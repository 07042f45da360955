"""Exit status 0 when the server in this container lives: /health/live on its port answers 200."""

import http.client
import os
import sys

PORT = int(os.environ.get("PORT") or 8081)
TIMEOUT_SECS = 3.0


def lives() -> bool:
    """Whether it answers so, in time."""
    connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=TIMEOUT_SECS)
    try:
        connection.request("GET", "/health/live")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


sys.exit(0 if lives() else 1)
