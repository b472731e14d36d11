"""The processes that a job consists of: their command lines, logs and environment."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..cluster.access import Access
from ..cluster.address import parse_address
from ..cluster.task_options import ParameterServerOptions, ProcessOptions
from ..cluster.token import TOKEN_VARIABLE, Token
from ..option import CONFIG_VARIABLE, all_definitions, build, values_of
from .launch.interface import ProcessSpec
from .launch_options import LaunchOptions
from .options import JobOptions, for_any_folder
from .role_options import ChiefOptions, WorkerOptions

SPARE = "spare"
# Parameters live on CPUs; a GPU there would only be kept from the workers.
_NO_GPU = {"CUDA_VISIBLE_DEVICES": "-1"}
# Options come as arguments alone: values of the job's environment are in them already.
_NO_OPTIONS = {
    each.variable: ""
    for each in all_definitions(ChiefOptions, ParameterServerOptions, WorkerOptions, LaunchOptions)
} | {CONFIG_VARIABLE: ""}
# The launcher's ports are the chief's; each other task takes free ones.
_FREE_PORTS = {"port": 0, "metrics_port": 0}
# On shared cores, workers give way to the processes that all of them wait for.
_WORKER_NICENESS = 5


@dataclass(frozen=True)
class JobProcesses:
    """Makes the `ProcessSpec` of each process of a job.

    Attributes:
        options: The options of the training.
        launch: The options of the launcher.
        job_id: Unique to the job.
        token: The secret of the job.
    """

    options: JobOptions
    launch: LaunchOptions
    job_id: str
    token: Token = field(default_factory=Token.new)

    @property
    def spares(self) -> int:
        """Parameter servers that stand by."""
        return self.launch.spares

    @property
    def gpus_per_worker(self) -> float:
        """GPUs of each worker, as Ray counts them."""
        return self.launch.gpus_per_worker

    @property
    def counts(self) -> Mapping[str, int]:
        """The number of processes of each role at the start of the job, in their order."""
        servers = 0 if self.options.ps_on_workers else self.options.num_ps
        return {"chief": 1, "ps": servers, SPARE: self.spares, "worker": self.options.num_workers}

    @property
    def log_folder(self) -> Path:
        """The folder of the processes' output: each on its host, also when `logdir` is a URL."""
        if "://" in self.options.logdir:
            return Path(tempfile.gettempdir(), f"paramserve-{self.job_id}")
        return Path(self.options.logdir, "logs").resolve()

    def access(self) -> Access:
        """Returns the token and TLS with which the launcher calls the chief."""
        return replace(self.launch.security.access(), token=self.token)

    def of_model(self, model: str) -> JobProcesses:
        """Returns the same with another reference to the model."""
        return replace(self, options=replace(self.options, model=model))

    def chief(self, address: str | None = None) -> ProcessSpec:
        """Returns the chief's process; at the address of an earlier one, if there was one."""
        own: dict[str, Any] = {"job_id": self.job_id, "supervised": True}
        if address is not None:
            own["port"] = parse_address(address).port
        return self._spec("chief", 0, ChiefOptions, own)

    def task(self, role: str, index: int, chief: str, *, replaces: bool = False) -> ProcessSpec:
        """Returns the process of a parameter server, spare or worker.

        With spares, the replacement of a lost parameter server is a spare too. If the place was
        taken already, it is the next to stand by; otherwise it takes the place at once.
        """
        own = {**_FREE_PORTS, "chief": chief}
        if role == "worker":
            return self._spec(role, index, WorkerOptions, {**own, "index": index})
        is_spare = role == SPARE or (replaces and self.spares > 0)
        place = {"spare": True} if is_spare else {"index": index}
        return self._spec(role, index, ParameterServerOptions, own | place)

    def _spec(
        self, role: str, index: int, cls: type[ProcessOptions], own: Mapping[str, Any]
    ) -> ProcessSpec:
        """Returns the process of a task, with the job's options among its own arguments."""
        job = for_any_folder(self.options)
        # The token is for the environment: arguments are seen by all users of a host.
        security = self.launch.security.for_any_folder()
        token = self.token if cls is ChiefOptions else self.token.as_member()
        known = {**vars(self.launch), **vars(job), "job": job, "security": security}
        options = values_of(build(cls, {**known, **own}))
        incarnation = options["incarnation"]
        del options["host"]  # For the launcher to say.
        is_worker = role == "worker"
        model = () if cls is ParameterServerOptions else (self.options.model,)
        return ProcessSpec(
            name=f"{role}-{index}",
            arguments=("ps" if role == SPARE else role, *model),
            log_path=str(self.log_folder / f"{role}-{index}.log"),
            options=options,
            incarnation=incarnation,
            gpus=self.gpus_per_worker if is_worker else 0.0,
            env=_NO_OPTIONS | {TOKEN_VARIABLE: token.text} | ({} if is_worker else _NO_GPU),
            # A chief that trains would be ahead of the other workers.
            niceness=_WORKER_NICENESS if is_worker and not self.options.chief_trains else 0,
        )
