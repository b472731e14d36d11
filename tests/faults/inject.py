"""Faults of a process or of its host, which can be undone."""

import contextlib
import os
import resource
import signal
import subprocess
from pathlib import Path

from .network import Network
from .trial import Trial

DELAY_SECS, LOSS = 0.2, 0.05
SPARE_BYTES = 4 * 2**20


class Injector:
    """Does one kind of fault to one process of a trial.

    Args:
        fault: See `cases.FAULTS`.
        target: Name of the process.
        trial: The job.
        network: Between the hosts, if they have one.
        hungry: The file that makes reading take memory.
    """

    def __init__(self, fault, target, trial: Trial, network: Network | None, hungry: Path):
        self._fault = fault
        self._target = target
        self._trial = trial
        self._network = network
        self._hungry = hungry
        self._process = None

    @property
    def is_passing(self):
        """True if the fault is to be undone."""
        return self._fault not in ("sigkill", "sigterm")

    def strike(self):
        self._process = self._trial.process(self._target)
        getattr(self, f"_{self._fault}")()

    def take_back(self):
        """Undoes the fault; a second call does nothing."""
        if self._process is None:
            return
        if self._fault == "sigstop":
            self._process.send_signal(signal.SIGCONT)
        elif self._network is not None:
            self._network.heal()
        elif self._fault == "disk":
            with contextlib.suppress(FileNotFoundError):
                filler_of(self._trial.logdir).unlink()
        elif self._fault == "memory":
            with contextlib.suppress(FileNotFoundError):
                self._hungry.unlink()
            limit_memory(self._process.pid, None)

    def _sigkill(self):
        self._process.send_signal(signal.SIGKILL)

    def _sigterm(self):
        self._process.send_signal(signal.SIGTERM)

    def _sigstop(self):
        self._process.send_signal(signal.SIGSTOP)

    def _halfcut(self):
        self._network.cut(self._target, incoming=False)

    def _cut(self):
        self._network.cut(self._target, incoming=True)

    def _slow(self):
        self._network.slow_down(self._target, DELAY_SECS, LOSS)

    def _disk(self):
        fill(self._trial.logdir)

    def _memory(self):
        if self._target.startswith("worker"):
            self._hungry.touch()
        limit_memory(self._process.pid, SPARE_BYTES)


def limit_memory(pid: int, more: int | None) -> None:
    """Limits a process to so many bytes more than it has now; None: no limit."""
    with contextlib.suppress(ProcessLookupError, FileNotFoundError):
        _, hard = resource.prlimit(pid, resource.RLIMIT_AS)
        soft = hard
        if more is not None:
            pages = int(Path(f"/proc/{pid}/statm").read_text().split()[0])
            soft = pages * resource.getpagesize() + more
        # The hard limit stays: without privileges it could not be raised again.
        resource.prlimit(pid, resource.RLIMIT_AS, (soft, hard))


@contextlib.contextmanager
def small_disk(folder: Path):
    """Makes a folder a disk of 16 MiB."""
    folder.mkdir(parents=True)
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16m", "none", str(folder)],
        check=True,
        capture_output=True,
    )
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def why_no_small_disk():
    return None if os.geteuid() == 0 else "only the superuser can mount a small disk"


def filler_of(disk: Path) -> Path:
    return disk / "filler"


def fill(disk: Path) -> None:
    with contextlib.suppress(OSError), filler_of(disk).open("wb", 0) as file:
        while True:
            file.write(bytes(4096))
