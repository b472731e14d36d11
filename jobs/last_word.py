"""The result of a job whose chief could not write one: it was killed, or never started."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..cluster.status_client import JOB_FILE, RESULT_FILE
from ..reasons import reason_of
from .options import JobOptions, JobResult

log = logging.getLogger(__name__)


def leave_result(
    options: JobOptions, job_id: str, read: Callable[[str], str | None], error: str
) -> None:
    """Writes the result of a failed job, unless its chief did or another job runs there.

    Args:
        options: The job.
        job_id: Unique to the run.
        read: Reads a file of the log directory where the chief ran; None if there is none.
        error: Why it failed.
    """
    try:
        if _job_of(read(RESULT_FILE)) == job_id or _job_of(read(JOB_FILE)) not in (None, job_id):
            return
        result = JobResult(
            *(0, None, 0, 0.0, 0.0, {}, "", options.trainers, options.num_ps, options.sync),
            *("failed", options.logdir),
            error=error,
            job_id=job_id,
        )
        _write(options.logdir, json.dumps(dataclasses.asdict(result), indent=2) + "\n")
    except Exception as second:  # The job's own error matters more.
        log.warning("%s was not written: %s", RESULT_FILE, reason_of(second))


def _job_of(content: str | None) -> Any:
    return json.loads(content).get("job_id") if content else None


def _write(logdir: str, result: str) -> None:
    """Writes the result, and removes the file that marks a running job."""
    if "://" in logdir:
        from ..cluster.logdir.interface import open_logdir  # Takes TensorFlow along.

        storage = open_logdir(logdir)
        storage.write_text(RESULT_FILE, result)
        storage.remove(JOB_FILE)
        return
    Path(logdir, RESULT_FILE).write_text(result)
    Path(logdir, JOB_FILE).unlink(missing_ok=True)
