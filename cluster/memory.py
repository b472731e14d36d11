"""Reuse of tensors' memory: freed blocks stay with the process for the next step."""

from __future__ import annotations

import ctypes
import logging
import os
from typing import Final

log = logging.getLogger(__name__)

# `mallopt(3)`: the numbers and limits of glibc. By default, freed blocks of some size return to the
# system after each step. The next step's tensors then wait for new pages, zeroed one by one: a
# measured third of the processor time of moving 64 MiB in tensors of 1 MiB.
_TRIM_THRESHOLD: Final = -1
_MMAP_THRESHOLD: Final = -3
_MOST_KEPT_BYTES: Final = (1 << 31) - 1
_LARGEST_REUSED_BYTES: Final = 32 << 20
_ENVIRONMENT: Final = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")


def keep_freed_memory() -> bool:
    """Makes this process reuse memory of tensors of up to 32 MiB, and keep up to 2 GiB of it.

    `MALLOC_TRIM_THRESHOLD_`, `MALLOC_MMAP_THRESHOLD_` or `GLIBC_TUNABLES` in the environment take
    precedence: then nothing is changed. The same holds for a C library other than glibc.

    Returns:
        True if the settings were made.
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
