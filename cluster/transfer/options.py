"""For modules that still look here."""

from ..data_plane import BUCKET_BYTES, DataPlane

__all__ = ["BUCKET_BYTES", "DataPlane"]
