class RequestError(Exception):
    code: str
    message: str
    retry_after_ms: int | None
    def __init__(self, code: str, message: str, retry_after_ms: int | None = None) -> None: ...

class UndecidedError(RequestError):
    action: str
    topic: str
    def __init__(self, action: str, topic: str) -> None: ...
