"""Arguments that several commands share, and how a command ends."""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Annotated

import typer

from ..cluster.startup_noise import without_noise
from ..cluster.task_options import TaskOptions
from ..errors import ExitCode, ParamserveError
from .options import flag_of

Model = Annotated[
    str,
    typer.Argument(help="Build function, as MODULE:FUNCTION or FILE.py:FUNCTION.", metavar="MODEL"),
]
MaxWaitSecs = Annotated[float, flag_of(TaskOptions, "max_wait_secs")]
Debug = Annotated[bool, flag_of(TaskOptions, "debug")]


def loading(debug: bool) -> AbstractContextManager[None]:
    """Returns a context for loading TensorFlow, without its start-up messages unless `debug`."""
    return nullcontext() if debug else without_noise()


def set_up_logging(debug: bool) -> None:
    """Logs of this process go to its standard error."""
    level = logging.DEBUG if debug else logging.INFO
    logging.basicConfig(
        level=level,
        format="%(asctime)s %(levelname).1s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    # Whatever verbosity TensorFlow has, here or by the model.
    logging.getLogger("paramserve").setLevel(level)
    # TensorFlow's Python warnings are about names that this project exists to keep alive.
    for chatty in ("tensorflow", "absl", "h5py", "grpc", "asyncio"):
        logging.getLogger(chatty).setLevel(logging.WARNING if debug else logging.ERROR)


@contextmanager
def ending_with_exit_code(debug: bool) -> Iterator[None]:
    """Ends the command, after a mistake or a failed job, with one message and an exit code.

    The last line on standard error then begins with "error: ".
    """
    try:
        yield
    except ParamserveError as error:
        if debug:
            traceback.print_exc()
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(error.exit_code) from error
    except KeyboardInterrupt:
        raise typer.Exit(ExitCode.INTERRUPTED) from None
