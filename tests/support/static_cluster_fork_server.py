"""Starts tasks of a static cluster in no time; run by the tests as a process.

Importing TensorFlow takes seconds, so it is done once, before the tasks are forked. Reads one JSON
object a line, {"log": file, "task": what static_cluster_task.py takes}, and answers each with the
process id. Ends, with all tasks, when its standard input does.
"""

import json
import os
import signal
import sys
import traceback

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from static_cluster_task import run_task


def start(log, task):
    pid = os.fork()
    if pid:
        return pid
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    code = 1
    try:
        run_task(task)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        # A TensorFlow server cannot be stopped.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def main():
    pids = []
    for line in sys.stdin:
        order = json.loads(line)
        if "wait" in order:
            _, status = os.waitpid(order["wait"], 0)
            pids.remove(order["wait"])
            print(os.waitstatus_to_exitcode(status), flush=True)
        else:
            pids.append(start(order["log"], order["task"]))
            print(pids[-1], flush=True)
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


main()
