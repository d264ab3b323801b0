from server_process import launch

__all__ = ["launch"]
