from attacks.websocket_peers import opened
from server_process import launch

__all__ = ["launch", "opened"]
