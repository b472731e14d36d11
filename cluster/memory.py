"""Memory that tensors have freed stays with the process, for the tensors of the next step."""

from __future__ import annotations

import ctypes
import logging
import os
from typing import Final

log = logging.getLogger(__name__)

# `mallopt(3)`: the numbers and limits of glibc. Without a say, freed blocks of some size go back to
# the system after each step, and the next one's tensors wait for new pages, zeroed one by one:
# measured, a third of the processor time of moving 64 MiB in tensors of 1 MiB.
_TRIM_THRESHOLD: Final = -1
_MMAP_THRESHOLD: Final = -3
_MOST_KEPT_BYTES: Final = (1 << 31) - 1
_LARGEST_REUSED_BYTES: Final = 32 << 20
_ENVIRONMENT: Final = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")


def keep_freed_memory() -> bool:
    """Makes this process reuse memory of tensors of up to 32 MiB, and keep up to 2 GiB of it.

    Whoever has set `MALLOC_TRIM_THRESHOLD_`, `MALLOC_MMAP_THRESHOLD_` or `GLIBC_TUNABLES` in the
    environment has decided already, and is left alone; so is a C library other than glibc.

    Returns:
        Whether it was done.
    """
    if any(name in os.environ for name in _ENVIRONMENT):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        log.debug("the C library has no mallopt: freed memory is its own affair")
        return False
    return bool(
        mallopt(_MMAP_THRESHOLD, _LARGEST_REUSED_BYTES)
        and mallopt(_TRIM_THRESHOLD, _MOST_KEPT_BYTES)
    )
