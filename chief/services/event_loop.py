"""`EventLoop`: an event loop in a thread of its own, and its delay."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

log = logging.getLogger(__name__)

Result = TypeVar("Result")

# Calls that block, such as a checkpoint, run in so many threads beside the loop.
WORK_THREADS = 16
BEAT_SECS = 0.25
_END_SECS = 5.0


class EventLoop:
    """An event loop in a thread of its own, with a bounded executor for calls that block.

    Args:
        name: Name of the threads.
        on_beat: Called in the loop about four times a second with the seconds by which it is late.
    """

    def __init__(self, name: str, on_beat: Callable[[float], None] = lambda _: None) -> None:
        self._on_beat = on_beat
        self._loop = asyncio.new_event_loop()
        self._loop.set_default_executor(ThreadPoolExecutor(WORK_THREADS, f"{name}-work"))
        self._loop.set_exception_handler(_handle_exception)
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    @property
    def is_running(self) -> bool:
        """True if the thread lives."""
        return self._thread.is_alive()

    def call(self, coroutine: Coroutine[Any, Any, Result], timeout_secs: float = 60.0) -> Result:
        """Runs a coroutine in the loop and returns its result; to be called in other threads."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(timeout_secs)

    def stop(self) -> None:
        """Cancels the tasks that still run in the loop, and ends its thread."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_END_SECS)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        beat = self._loop.create_task(self._beat())
        try:
            self._loop.run_forever()
            beat.cancel()
            left = asyncio.all_tasks(self._loop)
            for task in left:
                task.cancel()
            self._loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        finally:
            self._loop.close()

    async def _beat(self) -> None:
        while True:
            due = self._loop.time() + BEAT_SECS
            await asyncio.sleep(BEAT_SECS)
            self._on_beat(max(0.0, self._loop.time() - due))


def _handle_exception(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    # All loops of a process share gRPC's queue of events, and one of them finds it empty.
    if isinstance(context.get("exception"), BlockingIOError):
        return
    loop.default_exception_handler(context)
