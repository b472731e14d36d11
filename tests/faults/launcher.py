"""A launcher whose processes are forked from one that has imported TensorFlow already."""

import json
import os
import subprocess
import sys
import threading
import time
from collections import deque
from pathlib import Path

from paramserve.jobs.launch.interface import ProcessSpec

FORK_SERVER = Path(__file__).with_name("fork_server.py")
# How long processes may take to see by themselves that their job is over.
END_SECS = 15.0
# A process that starts so shortly before the end finds no chief: its launcher ends it.
START_SECS = 30.0


class ForkServer:
    """Forks processes; any thread may ask."""

    def __init__(self):
        self._lock = threading.Lock()
        self._process = subprocess.Popen(
            [sys.executable, str(FORK_SERVER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._answer()

    def ask(self, order):
        with self._lock:
            self._process.stdin.write(json.dumps(order) + "\n")
            self._process.stdin.flush()
            return self._answer()

    def _answer(self):
        line = self._process.stdout.readline()
        assert line, "the fork server has died"
        return json.loads(line)

    def close(self):
        self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()


class ForkedProcess:
    """A `ProcessHandle`."""

    def __init__(self, fork_server, spec: ProcessSpec, folder: Path, place):
        self.name = spec.name
        self.started = time.monotonic()
        self._fork_server = fork_server
        self._log = Path(spec.log_path)
        self._log.parent.mkdir(parents=True, exist_ok=True)
        temporary = folder / f"tmp-{spec.name}"
        temporary.mkdir(parents=True, exist_ok=True)
        self._code = None
        self.pid = fork_server.ask(
            {
                "start": {
                    "arguments": [*spec.arguments, "--host", place.address],
                    "log": spec.log_path,
                    "env": {**spec.env, "TMPDIR": str(temporary)},
                    "network": place.namespace,
                }
            }
        )

    def poll(self):
        if self._code is None:
            self._code = self._fork_server.ask({"poll": self.pid})
        return self._code

    def send_signal(self, signum):
        if self.poll() is None:
            os.kill(self.pid, signum)

    def log_tail(self, lines):
        with self._log.open(errors="replace") as log:
            return [line.rstrip("\n") for line in deque(log, maxlen=lines)]

    def read_file(self, path):
        try:
            return Path(path).read_text()
        except FileNotFoundError:
            return None

    def end(self):
        self._code = self._fork_server.ask({"end": self.pid})


class ForkingLauncher:
    """A `Launcher`; each process is on the host that `place` gives for its name.

    Attributes:
        processes: All that were ever started, in order.
        survivors: Names of those that had not ended by themselves when the job was over.
    """

    def __init__(self, fork_server, folder: Path, place):
        self._fork_server = fork_server
        self._folder = folder
        self._place = place
        self.processes = []
        self.survivors = []

    def start(self, spec):
        process = ForkedProcess(self._fork_server, spec, self._folder, self._place(spec.name))
        self.processes.append(process)
        return process

    def newest(self, name):
        """The newest process of that name; None before there is one."""
        return next((p for p in reversed(self.processes) if p.name == name), None)

    def close(self):
        began = time.monotonic()
        deadline = began + END_SECS
        while any(p.poll() is None for p in self.processes) and time.monotonic() < deadline:
            time.sleep(0.05)
        left = [p for p in self.processes if p.poll() is None]
        self.survivors = [p.name for p in left if began - p.started > START_SECS]
        for process in self.processes:
            process.end()
