"""Errors that end a process with a short message, and the exit codes that go with them."""

from __future__ import annotations

import enum


class ExitCode(enum.IntEnum):
    """What a `paramserve` command returns to the shell.

    ===  ==========================================================================
    0    Done: the job trained to its end, or the command did what was asked.
    1    The job failed: a task failed, the loss was NaN, or a process died.
    2    Bad usage: an option, a reference to a model, TF_CONFIG, or a directory.
    3    A wait ran out (`--max-wait-secs`): something expected never came.
    130  Ended by Ctrl-C or SIGTERM; a chief has written a checkpoint, and the same command
         resumes from it.
    143  Preempted: a signal asked one process of a job to end. It has left in good order, and
         the job continues; whatever supervises it may start another.
    ===  ==========================================================================
    """

    DONE = 0
    FAILED = 1
    USAGE = 2
    TIMED_OUT = 3
    INTERRUPTED = 130
    PREEMPTED = 143


class ParamserveError(Exception):
    """An error whose message says all that its reader needs: value, expectation, remedy.

    Commands print the message alone; `--debug` adds the traceback.
    """

    exit_code = ExitCode.FAILED


class JobFailed(ParamserveError):
    """The job cannot go on, or a task of it failed."""


class UsageError(ParamserveError, ValueError):
    """What was asked for cannot be: the caller has to change it."""

    exit_code = ExitCode.USAGE


class WaitTimeout(ParamserveError, TimeoutError):
    """`max_wait_secs` ran out; the message names what was missing."""

    exit_code = ExitCode.TIMED_OUT
