"""Signals that ask a process to end reach it even while it waits inside a library."""

import os
import signal
import subprocess
import sys

import pytest

# The main thread sleeps in C, where Python's own signal handlers never run.
PROGRAM = """
import ctypes, os, threading
from paramserve.cluster.signals import StopSignal

stop = StopSignal()

def end():
    print("asked", stop.event.is_set(), flush=True)
    stop.event.wait(60)
    print(stop.received.name, flush=True)
    os._exit(7)

threading.Thread(target=end).start()
while True:
    ctypes.CDLL(None).sleep(60)
"""


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_sets_the_event_and_does_not_kill(signum):
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        assert process.stdout.readline() == "asked False\n"
        os.kill(process.pid, signum)
        assert process.stdout.readline() == f"{signum.name}\n"
        assert process.wait(60) == 7
    finally:
        process.kill()
        process.wait()
