"""Signals that ask a process to end: they only set a flag."""

from __future__ import annotations

import signal
import threading

# The usual grace period of a preemption, if no other is configured.
GRACE_SECS = 30.0
STOP_SIGNALS = frozenset({signal.SIGINT, signal.SIGTERM})


class StopSignal:
    """A watch for signals, which sets `event` when the process is asked to end.

    A Python signal handler runs only when the main thread next executes Python; a thread that
    waits inside TensorFlow may never do so. So the signals are blocked everywhere and a thread of
    our own waits for them. Make it first thing, before any other thread starts: threads inherit
    the mask.
    """

    def __init__(self) -> None:
        self.event = threading.Event()
        self.received: signal.Signals | None = None
        signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        threading.Thread(target=self._wait, name="stop-signal", daemon=True).start()

    def _wait(self) -> None:
        self.received = signal.Signals(signal.sigwait(STOP_SIGNALS))
        self.event.set()
