from realtime_communication._core.hub.driver import Driver

class SocketDriver(Driver):
    @property
    def tls_failures(self) -> int: ...
