"""Errors that end a process with a short message, and the exit codes that go with them."""

from __future__ import annotations

import enum


class ExitCode(enum.IntEnum):
    """Exit code of a `paramserve` command.

    ===  ==========================================================================
    0    Done: the job trained to its end, or the command succeeded.
    1    The job failed: a task failed, the loss was NaN, or a process died.
    2    Bad usage: an option, a reference to a model, TF_CONFIG, or a directory.
    3    A wait ran out (`--max-wait-secs`): an expected task or answer never came.
    130  Ended by Ctrl-C or SIGTERM; a chief has written a checkpoint, and the same command
         resumes from it.
    143  Preempted: a signal asked one process of a job to end. It has shut down gracefully, and
         the job continues; its supervisor may start another one.
    ===  ==========================================================================
    """

    DONE = 0
    FAILED = 1
    USAGE = 2
    TIMED_OUT = 3
    INTERRUPTED = 130
    PREEMPTED = 143


class ParamserveError(Exception):
    """An error whose message has all that its reader needs: value, expectation, remedy.

    Commands print the message alone; `--debug` adds the traceback.
    """

    exit_code = ExitCode.FAILED


class JobFailed(ParamserveError):
    """The job cannot continue, or a task of it failed."""


class UsageError(ParamserveError, ValueError):
    """A request that cannot be met: the caller has to change it."""

    exit_code = ExitCode.USAGE


class WaitTimeout(ParamserveError, TimeoutError):
    """`max_wait_secs` ran out; the message names the missing part."""

    exit_code = ExitCode.TIMED_OUT
