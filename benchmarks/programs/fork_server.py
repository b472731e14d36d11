"""Forks tasks from a process that has imported TensorFlow already, which takes seconds.

Reads one order a line, {"start": a task} or {"poll": pid} or {"end": pid}, and answers each with
one line of JSON. Ends, with all its tasks, when its standard input does.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from typing import NoReturn

import tensorflow as tf

import paramserve.train

from ..task import Task
from .entry import die_with_parent, run_task

# Imported for the children.
_READY = (tf.__version__, paramserve.train.Server)


def start(text: str, parent: int) -> int:
    """Forks a process for the task; returns its id."""
    task = Task.from_json(text)
    pid = os.fork()
    if not pid:
        _become(task, parent)
    return pid


def _become(task: Task, parent: int) -> NoReturn:
    """Runs the task in the forked process, and ends the process."""
    code = 1
    try:
        os.setpgid(0, 0)
        die_with_parent(parent)
        log = os.open(task.log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        nothing = os.open(os.devnull, os.O_RDONLY)
        for target, source in ((0, nothing), (1, log), (2, log)):
            os.dup2(source, target)
        run_task(task)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        # A TensorFlow server cannot be stopped.
        os._exit(code)


def poll(pids: dict[int, int | None], pid: int) -> int | None:
    """The exit code of a task, negative for a signal, or None while it runs."""
    if pids[pid] is None:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            pids[pid] = os.waitstatus_to_exitcode(status)
    return pids[pid]


def end(pids: dict[int, int | None], pid: int) -> int | None:
    """Kills a task and takes its exit code."""
    if poll(pids, pid) is None:
        os.kill(pid, signal.SIGKILL)
        pids[pid] = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return pids[pid]


def main() -> None:
    """Takes orders until there are no more."""
    pids: dict[int, int | None] = {}
    parent = os.getpid()
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        answer: int | None
        if "start" in order:
            answer = start(order["start"], parent)
            pids[answer] = None
        elif "poll" in order:
            answer = poll(pids, order["poll"])
        else:
            answer = end(pids, order["end"])
        print(json.dumps(answer), flush=True)
    for pid in pids:
        end(pids, pid)


if __name__ == "__main__":
    main()
