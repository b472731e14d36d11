"""A process that runs one role: its options, its logs, and how it ends."""

from __future__ import annotations

import atexit
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import typer

from ..cluster.signals import StopSignal
from ..cluster.spec import Role
from ..cluster.task_options import ProcessOptions
from ..errors import ExitCode
from ..jobs.nesting import mark_task
from ..option import build
from . import arguments as args
from .place import find_place

# A library that hangs at the end of the process does not hold it up for longer.
EXIT_SECS = 5.0
Options = TypeVar("Options", bound=ProcessOptions)


def run_role(
    role: Role,
    cls: type[Options],
    given: Mapping[str, Any],
    run: Callable[[Options, threading.Event], ExitCode],
) -> None:
    """Runs a role to its end, and ends the process.

    TensorFlow's server has threads that never end, so the process is ended under them.

    Args:
        role: Which it is.
        cls: Its options.
        given: Those that were given, by name; `TF_CONFIG` may say more.
        run: Runs it; the event is set when the process is asked to end.
    """
    mark_task(role)
    signals = StopSignal()
    debug = given.get("debug", False)
    args.set_up_logging(debug)
    code = int(ExitCode.FAILED)
    try:
        with args.ending_with_exit_code(debug):
            options = build(cls, {**given, **find_place(role, given)})
            options.access  # noqa: B018  # Before TensorFlow is loaded.
            if options.notice_secs is not None:
                _end_in_time(signals.event, options.notice_secs)
            code = int(run(options, signals.event))
    except typer.Exit as end:
        code = end.exit_code
    except BaseException as error:
        import traceback

        from ..reasons import describe

        traceback.print_exc()
        print(f"error: {describe(error)}", file=sys.stderr)
    finally:
        _run_exit_functions()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _end_in_time(asked: threading.Event, grace_secs: float) -> None:
    """Ends a process that is asked to end and is busy for longer than its notice."""

    def end() -> None:
        asked.wait()
        time.sleep(grace_secs)
        print(f"the notice of {grace_secs:g} s is over: ended as it is", file=sys.stderr)
        sys.stderr.flush()
        os._exit(ExitCode.PREEMPTED)

    threading.Thread(target=end, name="grace", daemon=True).start()


def _run_exit_functions() -> None:
    """Runs the libraries' exit functions; TensorFlow's removes its temporary files."""
    thread = threading.Thread(target=atexit._run_exitfuncs, name="exit-functions", daemon=True)
    thread.start()
    thread.join(EXIT_SECS)
