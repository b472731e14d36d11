"""A `paramserve` command in a process that was forked for it."""

from __future__ import annotations

import runpy
import sys

from setproctitle import setproctitle


def run_command(*arguments: str) -> None:
    """Runs a `paramserve` command in this process, which is named after it."""
    setproctitle(" ".join([sys.executable, "-m", "paramserve", *arguments]))
    sys.argv = ["paramserve", *arguments]
    runpy.run_module("paramserve", run_name="__main__", alter_sys=True)
