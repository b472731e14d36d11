"""What crosses between workers and parameter servers, made few and medium-sized.

`prepare` changes a graph in place, just before its first session is made.
"""

from ..data_plane import BUCKET_BYTES, DataPlane
from .local_state import start as start_local_state
from .lossy_options import check_without_hooks, transfer_hooks
from .prepare import prepare
from .traffic import Traffic, find_traffic

__all__ = [
    "BUCKET_BYTES",
    "DataPlane",
    "Traffic",
    "check_without_hooks",
    "find_traffic",
    "prepare",
    "start_local_state",
    "transfer_hooks",
]
