"""The wanted numbers of workers and parameter servers of a running job."""

from __future__ import annotations

from ...errors import UsageError
from ...jobs.options import JobOptions


class ScaleTarget:
    """The requested numbers; may be read and changed by any thread.

    Args:
        options: The options of the job at its start.
        num_ps: Its present number of parameter servers.

    Attributes:
        workers: Workers wanted.
        ps: Parameter servers wanted.
        next: The number of parameter servers that is being prepared, and its layout; None: none.
        limits_workers: True if the number of workers was requested: before that, any worker that
            joins is welcome.
    """

    def __init__(self, options: JobOptions, num_ps: int) -> None:
        self._options = options
        self.workers = options.num_workers
        self.ps = num_ps
        self.next: tuple[int, int] | None = None
        self.limits_workers = False

    def ask(self, *, workers: int | None = None, ps: int | None = None) -> None:
        """Requests other numbers; None keeps one unchanged.

        Raises:
            UsageError: The job cannot have so many.
        """
        self._check("workers", workers)
        self._check("ps", ps)
        if workers is None and ps is None:
            raise UsageError("no numbers to scale to: give --workers N, --ps N, or both")
        if ps not in (None, self.ps) and self._options.ps_on_workers:
            raise UsageError(
                f"--ps {ps}: this job's workers hold the parameters (--ps-on-workers), and their "
                "number is fixed; stop the job, and start it with another number"
            )
        if workers is not None:
            self._check_workers(workers)
            self.workers, self.limits_workers = workers, True
        self.ps = self.ps if ps is None else ps

    def _check_workers(self, workers: int) -> None:
        options = self._options
        if options.chief_trains:
            raise UsageError(
                f"--workers {workers}: this job's chief is a worker as well (--chief-trains); "
                "start and stop others by hand, they may come and go"
            )
        if options.ps_on_workers and workers < options.num_ps:
            raise UsageError(
                f"--workers {workers}: {options.num_ps} of this job's workers hold the parameters "
                f"(--ps-on-workers); expected at least {options.num_ps}"
            )

    @staticmethod
    def _check(name: str, value: int | None) -> None:
        if value is not None and value < 1:
            raise UsageError(f"--{name} {value}: expected at least 1")
