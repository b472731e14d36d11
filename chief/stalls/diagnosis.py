"""Observations of workers and gradients while no step is made, and their description."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ...cluster.spec import Task
from ...protos import membership_pb2 as pb

_DOING = pb.WorkerReport
_AT: dict[int, tuple[str, str]] = {
    _DOING.UNKNOWN: ("has built its graph for {}", "the build function hangs"),
    _DOING.OPENING: ("has opened its session for {}", "the start of its input or a table hangs"),
    _DOING.BETWEEN: ("has been between two steps for {}", "a hook hangs"),
    _DOING.STEP: ("has been in a step for {}", "the step hangs, or its input does"),
}


@dataclass(frozen=True)
class WorkerObservation:
    """A worker that is up, as observed now.

    Attributes:
        task: The worker.
        incarnation: Its incarnation.
        local_steps: Steps that it has made in this life.
        sessions: The number of its session.
        doing: Its activity, a `pb.WorkerReport.Doing`.
        heard_secs: Seconds since its last heartbeat.
        starved: True if it waits for input.
    """

    task: Task
    incarnation: str
    local_steps: int = 0
    sessions: int = 0
    doing: int = _DOING.UNKNOWN
    heard_secs: float = 0.0
    starved: bool = False


@dataclass(frozen=True)
class StepObservation:
    """Sync mode: the gradients of the step under way.

    Attributes:
        step: The global step that they are for.
        waiting: Number of present gradients.
        replicas: Number of gradients in the step.
        given: The workers, by index, that have given theirs.
    """

    step: int
    waiting: int
    replicas: int
    given: frozenset[int]


def describe(
    job_secs: float | None,
    late: Mapping[WorkerObservation, float],
    waiting: Sequence[WorkerObservation],
    gradients: StepObservation | None,
) -> str:
    """Describes the workers without a step, and the workers that they keep waiting.

    Args:
        job_secs: Seconds without a global step; None: others make steps.
        late: The workers that others wait for, each with its seconds without a step.
        waiting: The waiting workers.
        gradients: Sync mode: the gradients of the step under way.
    """
    names = " and ".join(str(worker.task) for worker in late)
    said = [_say_late(worker, secs, gradients) for worker, secs in late.items()]
    said += [f"{worker.task} {_say_waiting(worker, names)}" for worker in waiting]
    if not late and gradients is not None:
        said.append(f"{gradients.waiting} of {gradients.replicas} gradients are there")
    begin = "a worker makes no step" if job_secs is None else f"no step for {job_secs:.0f} s"
    return f"{begin}: {'; '.join(said)}"


def _say_late(worker: WorkerObservation, secs: float, gradients: StepObservation | None) -> str:
    at, cause = _AT[worker.doing if worker.doing in _AT else _DOING.STEP]
    said = at.format(f"{secs:.0f} s")
    if worker.doing == _DOING.STEP and gradients is not None:
        said = f"has had a token for step {gradients.step} for {secs:.0f} s and gives no gradient"
    return f"{worker.task} {said} (last heard of {worker.heard_secs:.1f} s ago: {cause})"


def _say_waiting(worker: WorkerObservation, names: str) -> str:
    if worker.starved:
        return f"waits for input{f', as {names} may read the rest of it' if names else ''}"
    return f"waits for {names or 'a token'}"
