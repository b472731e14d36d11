"""Growth of the processes that outlive others, from one failure to the next."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from rich.table import Table

try:
    import psutil
except ModuleNotFoundError as error:
    raise SystemExit(
        "error: measuring what stays behind needs psutil: run `make bench` or `make test` once, or "
        "`pip install psutil`"
    ) from error

# The first losses load code and fill caches.
_WARM_UP = 0.2
_FEWEST = 5


@dataclass(frozen=True)
class Usage:
    """The resources of a process.

    Attributes:
        threads: Its threads.
        descriptors: Its open file descriptors.
        kibibytes: Its resident memory.
    """

    threads: int
    descriptors: int
    kibibytes: float

    @classmethod
    def of(cls, pid: int) -> Usage:
        """Measures the process of this id.

        Raises:
            psutil.NoSuchProcess: The process is gone.
        """
        process = psutil.Process(pid)
        resident = process.memory_info().rss / 1024
        return cls(process.num_threads(), process.num_fds(), resident)


class Remains:
    """The resources of processes after each failure.

    Example::

        remains = Remains()
        for kill in kills:
            remains.note({"chief": 4711, "worker:0": 4712})
        print(remains.table())
    """

    def __init__(self) -> None:
        self._seen: dict[tuple[str, int], list[Usage]] = {}

    def note(self, processes: Mapping[str, int]) -> None:
        """Looks at processes, given as ids by their names."""
        for name, pid in processes.items():
            with suppress(psutil.NoSuchProcess):
                self._seen.setdefault((name, pid), []).append(Usage.of(pid))

    def table(self) -> Table | None:
        """Makes a row for each process that outlived enough failures; None: there is none."""
        lasting = {key: seen for key, seen in self._seen.items() if len(seen) >= _FEWEST}
        if not lasting:
            return None
        table = Table(title="growth after the first failures", title_justify="left")
        for column in ("process", "losses", "threads", "descriptors", "KiB a loss"):
            table.add_column(column, justify="left" if column == "process" else "right")
        for (name, _), seen in lasting.items():
            first, last = seen[int(len(seen) * _WARM_UP)], seen[-1]
            losses = len(seen) - 1 - int(len(seen) * _WARM_UP)
            table.add_row(
                name,
                str(losses),
                f"{first.threads} to {last.threads}",
                f"{first.descriptors} to {last.descriptors}",
                f"{(last.kibibytes - first.kibibytes) / losses:+.0f}",
            )
        return table
