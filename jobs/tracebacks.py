"""Errors of a job that end a program: its own lines and the message, without lines of ours."""

from __future__ import annotations

import functools
import sys
from types import TracebackType

from ..errors import ParamserveError

_PACKAGE = __name__.partition(".")[0]


@functools.cache
def hide_own_frames() -> None:
    """Leaves this package's frames out of tracebacks of its own errors, when they end a program."""
    show = sys.excepthook

    def show_without(
        kind: type[BaseException], error: BaseException, trace: TracebackType | None
    ) -> None:
        if isinstance(error, ParamserveError):
            trace = _without_own(trace)
            error = error.with_traceback(trace)
            error.__cause__, error.__suppress_context__ = None, True
        show(kind, error, trace)

    sys.excepthook = show_without


def _without_own(trace: TracebackType | None) -> TracebackType | None:
    if trace is None:
        return None
    rest = _without_own(trace.tb_next)
    is_own = trace.tb_frame.f_globals.get("__name__", "").partition(".")[0] == _PACKAGE
    return rest if is_own else TracebackType(rest, trace.tb_frame, trace.tb_lasti, trace.tb_lineno)
