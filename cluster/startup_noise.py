"""TensorFlow's harmless messages at every start on a machine without GPUs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# As `grep -E` and `re` both read it. That no driver was found (303) or no device is an error to
# TensorFlow only; any other error of CUDA is one.
NOISE = (
    "^(WARNING: All log messages before absl|I0000 |To enable the following instructions:"
    "|E0000 .*failed call to cuInit: .*(UNKNOWN ERROR .303.|CUDA_ERROR_NO_DEVICE))"
)
_noise = re.compile(NOISE)
_FILTER_SECS = 5.0
_GPUS = ("nvidia[0-9]*", "dxg", "kfd")


def has_gpus() -> bool:
    """Returns whether this machine has GPUs, as far as its device files say."""
    return any(next(Path("/dev").glob(name), None) for name in _GPUS)


def is_noise(line: str) -> bool:
    """Returns whether a line of a log says nothing, unless GPUs were expected."""
    return _noise.match(line) is not None


@contextmanager
def without_noise() -> Iterator[None]:
    """Leaves start-up messages out of standard error while TensorFlow is loaded.

    A process of its own passes the others on, so the last words of a load that crashes are not
    lost. On a machine with GPUs every line counts.
    """
    if has_gpus() or "tensorflow" in sys.modules:
        yield
        return
    sys.stderr.flush()
    terminal = os.dup(2)
    try:
        # In a session of its own, it outlives a Ctrl-C as long as there are lines to pass on.
        grep = subprocess.Popen(
            ["grep", "--line-buffered", "-Ev", NOISE],
            stdin=subprocess.PIPE,
            stdout=terminal,
            start_new_session=True,
        )
    except OSError:
        os.close(terminal)
        yield
        return
    assert grep.stdin is not None
    os.dup2(grep.stdin.fileno(), 2)
    grep.stdin.close()
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(terminal, 2)
        os.close(terminal)
        try:
            grep.wait(_FILTER_SECS)
        except subprocess.TimeoutExpired:  # Something that was started meanwhile still writes.
            grep.kill()
            grep.wait()
