"""Options of a chief and of a worker; a parameter server's are in `cluster/task_options.py`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from ..cluster.task_options import ProcessOptions, TaskOptions, port_option
from ..model.job_options import ModelOptions
from ..option import Option
from .launch_options import TENSORFLOW_PORT_OPTION
from .options import JobOptions, new_job_id

CHIEF_PORT = 7077


@dataclass(frozen=True, kw_only=True)
class ChiefOptions(ProcessOptions):
    """Options of a chief.

    Attributes:
        job: What the job is asked to do.
        port: Port of the control service; 0 takes a free one.
        tensorflow_port: Port of its TensorFlow server; 0 takes a free one.
        job_id: Unique to this run.
        supervised: True if a launcher restarts tasks that ended, the chief too, with the same
            `job_id` and port.
    """

    job: JobOptions
    port: Annotated[int, port_option(f"Port of the control service; default {CHIEF_PORT}.")] = (
        CHIEF_PORT
    )
    tensorflow_port: Annotated[int, TENSORFLOW_PORT_OPTION] = 0
    job_id: Annotated[str, Option(help="Unique to this run.", is_flag_only=True)] = field(
        default_factory=new_job_id
    )
    supervised: Annotated[
        bool,
        Option(
            help="A supervisor restarts lost tasks, this one too: on SIGTERM it saves, and "
            "leaves the job to the next chief.",
            is_flag_only=True,
        ),
    ] = False

    @property
    def notice_secs(self) -> float | None:
        """See `ProcessOptions`; without a next chief, the save may take any time."""
        return self.grace_secs if self.supervised else None


@dataclass(frozen=True, kw_only=True)
class WorkerOptions(TaskOptions, ModelOptions):
    """Options of a worker; its `params` are added to those of the job, and win."""
