from realtime_communication._core.hub.bus_user import BusUser

class Core(BusUser):
    @property
    def node_id(self) -> bytes: ...
