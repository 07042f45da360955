class RequestError(Exception):
    code: str
    message: str
    retry_after_ms: int | None
    def __init__(self, code: str, message: str, retry_after_ms: int | None = None) -> None: ...
