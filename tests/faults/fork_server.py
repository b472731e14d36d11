"""Starts `paramserve` processes in no time; run by the tests as a process.

Importing TensorFlow takes seconds, so it is done once, before the tasks are forked. Reads one JSON
object a line, {"start": what to run}, {"poll": pid} or {"end": pid}, and answers each with one
line. Ends, with all tasks, when its standard input does.
"""

import contextlib
import ctypes
import json
import os
import signal
import sys
import traceback

os.environ.update(TF_CPP_MIN_LOG_LEVEL="2", OPENBLAS_NUM_THREADS="1")

import tensorflow  # noqa: F401

import paramserve.chief.process
import paramserve.cluster.parameter_server
import paramserve.worker.process  # noqa: F401
from paramserve.jobs.launch.fork_server import run_command
from paramserve.jobs.launch.parent import PARENT_VARIABLE

CLONE_NEWNET = 0x40000000


def start(task):
    parent = os.getpid()
    pid = os.fork()
    if not pid:
        become(task, parent)
    return pid


def become(task, parent):
    code = 1
    try:
        os.setsid()
        log = os.open(task["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        nothing = os.open(os.devnull, os.O_RDONLY)
        for target, source in ((0, nothing), (1, log), (2, log)):
            os.dup2(source, target)
        if task["network"]:
            enter_network(task["network"])
        os.environ.update(task["env"])
        os.environ[PARENT_VARIABLE] = str(parent)
        run_command(task["arguments"])
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def enter_network(name):
    """Enters a network namespace as `ip netns exec` does; no thread of the process runs yet."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open(f"/run/netns/{name}") as namespace:
        if libc.setns(namespace.fileno(), CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), f"cannot enter the network namespace {name!r}")


def poll(codes, pid):
    if codes[pid] is None:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            codes[pid] = os.waitstatus_to_exitcode(status)
    return codes[pid]


def end(codes, pid):
    if poll(codes, pid) is None:
        os.kill(pid, signal.SIGKILL)
        codes[pid] = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return codes[pid]


def main():
    codes = {}
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        if "start" in order:
            answer = start(order["start"])
            codes[answer] = None
        elif "poll" in order:
            answer = poll(codes, order["poll"])
        else:
            answer = end(codes, order["end"])
        print(json.dumps(answer), flush=True)
    for pid in codes:
        with contextlib.suppress(ProcessLookupError):
            end(codes, pid)


main()
