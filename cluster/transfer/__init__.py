"""What crosses between workers and parameter servers, made few and medium-sized.

`prepare` changes a graph in place, just before its first session is made.
"""

from ..data_plane import BUCKET_BYTES, DataPlane
from .prepare import prepare
from .traffic import Traffic, find_traffic

__all__ = ["BUCKET_BYTES", "DataPlane", "Traffic", "find_traffic", "prepare"]
