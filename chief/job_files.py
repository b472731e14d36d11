"""The job's own files in the log directory: the chief's address, metrics targets, the result.

Parameter servers and workers outlive their chief. A chief that is restarted with the same job's
identifier finds the members in the log directory. It continues with the model that they hold.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import uuid
from typing import Any

from ..cluster.logdir.errors import LOGDIR_ERRORS, remedy_for
from ..cluster.logdir.interface import LogDirectory, open_logdir
from ..cluster.spec import Role, Task
from ..cluster.status_client import JOB_FILE, RESULT_FILE
from ..errors import JobFailed, UsageError
from ..jobs.options import JobResult
from ..reasons import reason_of
from .membership.membership import Membership
from .membership.tasks import TaskRecord, TaskState
from .resize.scaling import ScaleTarget

log = logging.getLogger(__name__)

TARGETS_FILE = "metrics_targets.json"
MEMBERS_FILE = "members.json"


class JobFiles:
    """Writes the job's files. Each appears whole or not at all.

    Args:
        logdir: The log directory: a path, a URL or an open storage.
    """

    def __init__(self, logdir: str | LogDirectory) -> None:
        self._storage = open_logdir(logdir)

    def prepare(self) -> None:
        """Creates the directory and tries to write into it.

        Raises:
            UsageError: It cannot be created or written.
        """
        probe = f".write-probe-{uuid.uuid4().hex}"
        try:
            self._storage.prepare()
            self._storage.write_text(probe, "")
            self._storage.remove(probe)
        except LOGDIR_ERRORS as error:
            raise UsageError(
                f"--logdir {self._storage.logdir!r} is not writable: {reason_of(error)}"
            ) from error

    def announce(self, job_id: str, address: str, metrics_address: str) -> None:
        """Says where the chief of the running job is."""
        job = {
            "job_id": job_id,
            "address": address,
            "metrics_address": metrics_address,
            "pid": os.getpid(),
        }
        self._write(JOB_FILE, job)

    def write_members(self, text: str) -> None:
        """Writes the members of the job, for the next chief."""
        self._storage.write_text(MEMBERS_FILE, text + "\n")

    def read_members(self) -> str | None:
        """Returns an earlier chief's `write_members`; None if that chief ended normally."""
        return self._storage.read_text(MEMBERS_FILE)

    def withdraw(self) -> None:
        """Removes the files of a running job: nothing runs any more."""
        try:
            self._storage.remove(JOB_FILE, TARGETS_FILE, MEMBERS_FILE)
        except LOGDIR_ERRORS as error:
            log.warning("%s stays in %s: %s", JOB_FILE, self._storage.logdir, reason_of(error))

    def write_targets(
        self, job_id: str, chief: str, membership: Membership, *, over_tls: bool = False
    ) -> None:
        """Lists the metrics targets, in the format of Prometheus's file service discovery."""
        addresses = [("chief", 0, chief)] + [
            (str(record.task.role), record.task.index, record.metrics_address)
            for record in (*membership.up(Role.PS), *membership.up(Role.WORKER))
            if record.metrics_address
        ]
        scheme = {"__scheme__": "https"} if over_tls else {}
        targets = [
            json.dumps(
                {
                    "targets": [address],
                    "labels": {"role": role, "index": str(index), "job_id": job_id, **scheme},
                }
            )
            for role, index, address in addresses
        ]
        self._storage.write_text(TARGETS_FILE, "[\n" + ",\n".join(targets) + "\n]\n")

    def write_result(self, result: JobResult) -> None:
        """Writes how the job ended.

        Raises:
            JobFailed: It could not be written.
        """
        try:
            self._write(RESULT_FILE, dataclasses.asdict(result))
        except LOGDIR_ERRORS as error:
            raise JobFailed(
                f"the job trained to its end, but {RESULT_FILE} was not written: "
                f"{reason_of(error)}{remedy_for(error)}; the model is in {result.checkpoint}"
            ) from error

    def write_failure(self, result: JobResult) -> None:
        """Writes how a job that failed ended; that it cannot be written is only logged."""
        try:
            self._write(RESULT_FILE, dataclasses.asdict(result))
        except LOGDIR_ERRORS as error:
            log.warning("%s was not written: %s", RESULT_FILE, reason_of(error))

    def _write(self, name: str, value: Any) -> None:
        self._storage.write_text(name, json.dumps(value, indent=2) + "\n")


def to_json(job_id: str, membership: Membership, plan: ScaleTarget) -> str:
    """Returns the members of a job, and its wanted number of workers, for `adopt`."""
    with membership.changed:
        records = membership.records()
        job = {
            "job_id": job_id,
            "generation": membership.generation,
            "num_ps": membership.num_ps,
            "layout": membership.layout,
            "workers": plan.workers if plan.limits_workers else None,
        }
    # One by one: thousands of them in one call would keep other threads waiting.
    tasks = ",\n".join(
        json.dumps(
            {
                "role": str(record.task.role),
                "index": record.task.index,
                "state": str(record.state),
                "address": record.address,
                "incarnation": record.incarnation,
                "metrics_address": record.metrics_address,
                "pid": record.pid,
            }
        )
        for record in records
    )
    return json.dumps(job)[:-1] + f', "tasks": [\n{tasks}\n]}}'


def adopt(text: str | None, job_id: str, membership: Membership, plan: ScaleTarget) -> bool:
    """Takes over the tasks that an earlier chief of the same job had.

    Args:
        text: The result of `to_json`; None if there is none.
        job_id: The job's identifier.
        membership: Receives the tasks; empty before.
        plan: Receives the numbers requested of the earlier chief.

    Returns:
        True if there was a job to take over: it had all of its parameter servers.
    """
    left = _read(text)
    if left.get("job_id") != job_id:
        return False
    try:
        records, workers = [_record(each) for each in left["tasks"]], left["workers"]
        is_found = membership.adopt(
            int(left["generation"]), records, int(left["num_ps"]), int(left["layout"])
        )
        plan.ps = membership.num_ps
        if is_found and workers is not None:
            plan.ask(workers=int(workers))
        return is_found
    except (KeyError, TypeError, ValueError):
        return False  # Of another version: the job starts from its checkpoint.


def _read(text: str | None) -> dict[str, Any]:
    try:
        left = json.loads(text or "{}")
    except ValueError:
        return {}
    return left if isinstance(left, dict) else {}


def _record(each: dict[str, Any]) -> TaskRecord:
    return TaskRecord(
        task=Task(Role.parse(each["role"]), int(each["index"])),
        address=str(each["address"]),
        incarnation=str(each["incarnation"]),
        metrics_address=str(each["metrics_address"]),
        pid=int(each["pid"]),
        heard=0.0,
        state=TaskState(each["state"]),
    )
