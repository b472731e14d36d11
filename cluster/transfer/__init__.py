"""What crosses between workers and parameter servers, made few and medium-sized.

`prepare` changes a graph in place, just before its first session is made.
"""

from .options import BUCKET_BYTES, DataPlane
from .prepare import prepare

__all__ = ["BUCKET_BYTES", "DataPlane", "prepare"]
