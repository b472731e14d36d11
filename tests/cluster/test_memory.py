"""Freed memory is reused, and not asked from the system again."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

_PROGRAM = """
import resource
from paramserve.cluster.memory import keep_freed_memory

done = keep_freed_memory()
def use():
    blocks = [bytearray(8 << 20) for _ in range(4)]
use()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    use()
print(done, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
_BLOCK_PAGES = (8 << 20) // 4096  # Written when they are zeroed: a fault for each page that is new.


def _page_faults(**environment: str) -> tuple[bool, int]:
    clean = {key: value for key, value in os.environ.items() if "MALLOC" not in key}
    clean.pop("GLIBC_TUNABLES", None)
    result = subprocess.run(
        [sys.executable, "-c", _PROGRAM],
        env=clean | environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    done, faults = result.stdout.split()
    return done == "True", int(faults)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's own setting")
def test_a_block_that_was_freed_costs_no_page_faults_again() -> None:
    done, faults = _page_faults()
    assert done
    assert faults < _BLOCK_PAGES, "20 blocks did not reuse the memory of the first 4"


def test_who_has_set_the_environment_is_left_alone() -> None:
    done, _ = _page_faults(MALLOC_TRIM_THRESHOLD_="131072")
    assert not done
