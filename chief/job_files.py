"""The job's own files in the log directory: where the chief is, what to scrape, the result."""

from __future__ import annotations

import dataclasses
import json
import os
import uuid
from typing import Any

import tensorflow as tf

from ..cluster.spec import Role
from ..cluster.status_client import JOB_FILE, RESULT_FILE
from ..errors import UsageError, first_line
from .membership import Membership
from .options import JobResult

TARGETS_FILE = "metrics_targets.json"


class JobFiles:
    """Writes the job's files. Each appears whole or not at all.

    Args:
        logdir: The log directory, local or any that TensorFlow's filesystems reach.
    """

    def __init__(self, logdir: str) -> None:
        self._logdir = logdir

    def prepare(self) -> None:
        """Creates the directory and tries to write into it.

        Raises:
            UsageError: It cannot be created or written.
        """
        probe = self._path(f".write-probe-{uuid.uuid4().hex}")
        try:
            tf.io.gfile.makedirs(self._logdir)
            with tf.io.gfile.GFile(probe, "w") as file:
                file.write("")
            tf.io.gfile.remove(probe)
        except (tf.errors.OpError, OSError) as error:
            raise UsageError(
                f"--logdir {self._logdir!r} is not writable: {first_line(error)}"
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

    def withdraw(self) -> None:
        """Takes back what `announce` and `write_targets` said: nothing runs any more."""
        for name in (JOB_FILE, TARGETS_FILE):
            if tf.io.gfile.exists(self._path(name)):
                tf.io.gfile.remove(self._path(name))

    def write_targets(self, job_id: str, chief: str, membership: Membership) -> None:
        """Lists what to scrape, in the format of Prometheus's file service discovery."""
        addresses = [("chief", 0, chief)] + [
            (str(record.task.role), record.task.index, record.metrics_address)
            for record in (*membership.up(Role.PS), *membership.up(Role.WORKER))
            if record.metrics_address
        ]
        targets = [
            {
                "targets": [address],
                "labels": {"role": role, "index": str(index), "job_id": job_id},
            }
            for role, index, address in addresses
        ]
        self._write(TARGETS_FILE, targets)

    def write_result(self, result: JobResult) -> None:
        """Writes how the job ended."""
        self._write(RESULT_FILE, dataclasses.asdict(result))

    def _path(self, name: str) -> str:
        return str(tf.io.gfile.join(self._logdir, name))

    def _write(self, name: str, value: Any) -> None:
        temporary = self._path(f".{name}-{uuid.uuid4().hex}")
        with tf.io.gfile.GFile(temporary, "w") as file:
            file.write(json.dumps(value, indent=2) + "\n")
        tf.io.gfile.rename(temporary, self._path(name), overwrite=True)
