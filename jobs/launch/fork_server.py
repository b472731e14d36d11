"""A process that loads TensorFlow once, and is forked for each process of its parent.

Loading TensorFlow is most of the cost of a start. This process only loads, so that a forked process
has neither threads nor a TensorFlow runtime of its own yet. Run by `forked.ForkServer`, it reads
JSON objects from its standard input, one a line. The first is {"function", "preload"}: the function
of each process, "module:function", and the modules to load. Each other is an order, {"arguments",
"log", "env", "niceness"}, answered with the process id. It ends when its input does. Arguments of
this process would spoil the titles of the forked ones.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import sys
import traceback
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from setproctitle import getproctitle

from ...cluster.startup_noise import without_noise
from .parent import PARENT_VARIABLE, die_with_parent

# Modules that libraries load at their first use, which would take time after the fork. A version
# without them is as good.
LOADED_LATE = ("pydantic.type_adapter", "typer._adapters", "numpy.random")


def main() -> None:
    """Loads, and forks until there are no more orders."""
    parent = int(os.environ[PARENT_VARIABLE])
    die_with_parent()
    program = json.loads(sys.stdin.readline())
    getproctitle()  # Finds where the title is, which it could not once the environment is another.
    with without_noise():
        for name in (*program["preload"], program["function"].partition(":")[0]):
            importlib.import_module(name)
    for name in LOADED_LATE:
        with suppress(ImportError):
            importlib.import_module(name)
    gc.freeze()  # Else each process looks through all of this again, and so copies it.
    for line in sys.stdin:
        print(_start(program["function"], json.loads(line), parent), flush=True)


def _start(function: str, order: Mapping[str, Any], parent: int) -> int:
    """Forks twice: a process whose parent has ended becomes a child of `parent`.

    So it can be waited for there, and survives the loss of this process.
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
        _become(function, order, parent)
    os.close(found[1])
    os.waitpid(between, 0)
    os.close(is_parted[0])
    os.close(is_parted[1])
    with os.fdopen(found[0]) as answer:
        return int(answer.read())


def _become(function: str, order: Mapping[str, Any], parent: int) -> None:
    """Runs the function in this process, and ends the process."""
    code = 1
    try:
        _redirect(order["log"])
        if order["niceness"]:
            _stand_back(order["niceness"])
        os.environ.clear()
        os.environ.update(order["env"], **{PARENT_VARIABLE: str(parent)})
        die_with_parent()
        _renew_randomness()
        module, _, name = function.partition(":")
        getattr(importlib.import_module(module), name)(*order["arguments"])
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)  # A TensorFlow server cannot be stopped.


def _redirect(log: str) -> None:
    os.setsid()
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    descriptors = os.open(os.devnull, os.O_RDONLY), output
    for target, source in ((0, descriptors[0]), (1, descriptors[1]), (2, descriptors[1])):
        os.dup2(source, target)
    for descriptor in descriptors:
        os.close(descriptor)


def _stand_back(niceness: int) -> None:
    """Lowers the priority, also of the session: the kernel may weigh only whole sessions."""
    os.nice(niceness)
    with suppress(OSError):
        Path("/proc/self/autogroup").write_text(str(niceness))


def _renew_randomness() -> None:
    """Reseeds NumPy, or all forked processes would draw equal samples; `random` does so itself."""
    import numpy as np

    np.random.seed()


if __name__ == "__main__":
    main()
