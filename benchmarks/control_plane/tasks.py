"""One process of simulated tasks; it is told what to do in lines of JSON, and answers likewise.

Commands: `{"do": "register", "role": "worker", "first": 0, "count": 100, "max_wait_secs": 60}`
answers how many have registered and when the last one had; `{"do": "take"}` answers what was seen
since the last time. It ends when its input does.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import time
from typing import Any

from .protocol import Observations, SimulatedTask

_BEAT_SECS = 0.02


class Tasks:
    """The simulated tasks of this process.

    Args:
        chief: The address of the chief.
    """

    def __init__(self, chief: str) -> None:
        self._chief = chief
        self._seen = Observations()
        self._lag: list[float] = []
        self._running: set[asyncio.Task[None]] = set()

    async def register(
        self, role: str, first: int, count: int, max_wait_secs: float
    ) -> dict[str, Any]:
        """Makes new tasks join at once; members stay until the end of this process."""
        tasks = [
            SimulatedTask(self._chief, role, first + number, self._seen) for number in range(count)
        ]

        async def join(task: SimulatedTask) -> float | None:
            if not await task.register(max_wait_secs):
                return None
            self._keep(asyncio.create_task(task.stay()))
            return time.monotonic()

        ends = [end for end in await asyncio.gather(*map(join, tasks)) if end is not None]
        gc.collect()
        gc.freeze()  # A look through all objects of the tasks would count as the chief's delay.
        return {"registered": len(ends), "ended": max(ends, default=0.0)}

    async def take(self) -> dict[str, Any]:
        """Returns the counts since the last call."""
        seen = {**vars(self._seen), "lag_secs": self._lag}
        self._seen.answer_secs, self._seen.unanswered, self._lag = [], 0, []
        return seen

    async def beat(self) -> None:
        """Notes by how much this process is late itself."""
        while True:
            due = time.monotonic() + _BEAT_SECS
            await asyncio.sleep(_BEAT_SECS)
            self._lag.append(time.monotonic() - due)

    def _keep(self, task: asyncio.Task[None]) -> None:
        self._running.add(task)
        task.add_done_callback(self._running.discard)


async def run(chief: str) -> None:
    """Does what its input says, until that ends."""
    tasks = Tasks(chief)
    beat = asyncio.create_task(tasks.beat())
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(lines), sys.stdin
    )
    while line := await lines.readline():
        command = json.loads(line)
        name = command.pop("do")
        answer = await (tasks.register if name == "register" else tasks.take)(**command)
        print(json.dumps(answer), flush=True)
    beat.cancel()


if __name__ == "__main__":
    asyncio.run(run(sys.argv[1]))
