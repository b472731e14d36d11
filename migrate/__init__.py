"""Migration of scripts for TensorFlow 1 to `paramserve` and today's TensorFlow."""

from .names import NAMESPACES, Finding, Namespace, Place, place
from .rewrite import Migration, migrate_source

__all__ = ["NAMESPACES", "Finding", "Migration", "Namespace", "Place", "migrate_source", "place"]
