"""A process that has loaded TensorFlow once, and becomes each process that its parent asks for.

Loading TensorFlow is most of what a start costs. This process never does more than load, so that
what is forked from it has neither threads nor a TensorFlow runtime of its own yet. Run by
`forked.ForkServer`: it reads one order a line, a JSON object {"arguments", "log", "env",
"niceness"}, from its standard input, answers each with the process id, and ends when its input
does.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import runpy
import sys
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from setproctitle import getproctitle, setproctitle

from ...cluster.startup_noise import without_noise
from .parent import PARENT_VARIABLE, die_with_parent

# What the roles need, and nobody calls here.
PRELOADED = (
    "paramserve.cli.app",
    "paramserve.chief.process",
    "paramserve.cluster.parameter_server",
    "paramserve.worker.process",
)

# What libraries load at their first use, so that it takes time after the fork; a version that does
# without is as good.
LOADED_LATE = ("pydantic.type_adapter", "typer._adapters", "numpy.random")


def main() -> None:
    """Loads, and forks until there are no more orders."""
    parent = int(os.environ[PARENT_VARIABLE])
    die_with_parent()
    getproctitle()  # Finds where the title is, which it could not once the environment is another.
    with without_noise():
        for name in PRELOADED:
            importlib.import_module(name)
    for name in LOADED_LATE:
        with suppress(ImportError):
            importlib.import_module(name)
    gc.freeze()  # Else each process looks through all of this again, and so copies it.
    for line in sys.stdin:
        print(_start(json.loads(line), parent), flush=True)


def _start(order: Mapping[str, Any], parent: int) -> int:
    """Forks twice: a process whose parent has ended becomes a child of `parent`.

    So it can be waited for there, and lives on if this process is lost.
    """
    found, is_parted = os.pipe(), os.pipe()
    between = os.fork()
    if not between:
        pid = os.fork()
        if pid:
            os.write(found[1], str(pid).encode())
            os._exit(0)
        os.close(is_parted[1])
        os.read(is_parted[0], 1)  # Ends once the process between has.
        for end in (*found, is_parted[0]):
            os.close(end)
        _become(order, parent)
    os.close(found[1])
    os.waitpid(between, 0)
    os.close(is_parted[0])
    os.close(is_parted[1])
    with os.fdopen(found[0]) as answer:
        return int(answer.read())


def _become(order: Mapping[str, Any], parent: int) -> None:
    """Turns this process into a `paramserve` command, as if it had been started as one."""
    code = 1
    try:
        _redirect(order["log"])
        if order["niceness"]:
            _stand_back(order["niceness"])
        os.environ.clear()
        os.environ.update(order["env"], **{PARENT_VARIABLE: str(parent)})
        run_command(order["arguments"])
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def run_command(arguments: Sequence[str]) -> None:
    """Runs a `paramserve` command in this process, which is named after it."""
    setproctitle(" ".join([sys.executable, "-m", "paramserve", *arguments]))
    _renew_randomness()
    sys.argv = ["paramserve", *arguments]
    runpy.run_module("paramserve", run_name="__main__", alter_sys=True)


def _redirect(log: str) -> None:
    os.setsid()
    descriptors = os.open(os.devnull, os.O_RDONLY), os.open(log, os.O_WRONLY | os.O_APPEND)
    for target, source in ((0, descriptors[0]), (1, descriptors[1]), (2, descriptors[1])):
        os.dup2(source, target)
    for descriptor in descriptors:
        os.close(descriptor)


def _stand_back(niceness: int) -> None:
    """For all others of this host: the kernel may weigh only whole sessions, and this is one."""
    os.nice(niceness)
    with suppress(OSError):
        Path("/proc/self/autogroup").write_text(str(niceness))


def _renew_randomness() -> None:
    """Processes that draw the same numbers would draw the same samples; `random` does it itself."""
    import numpy as np

    np.random.seed()


if __name__ == "__main__":
    main()
