"""The chief's graph of the model on a number of parameter servers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ...cluster.spec import Role, Task
from ...data_plane.prepare import prepare
from ...data_plane.traffic import Traffic, find_traffic
from ...jobs.options import JobOptions
from ...loops.loop import LoopContext
from ...model.graph import GraphOptions, TrainGraph, build_train_graph
from ...model.input.source import InputSource, WholeInput
from ...model.spec import BuildFn, TaskContext
from ..checkpoints.mirrors import Mirrors

CHIEF = Task(Role.CHIEF, 0)


@dataclass(frozen=True)
class Layout:
    """The chief's view of the model on some number of parameter servers.

    Attributes:
        number: Counts the layouts of a job; its variables lie in a container of that number.
        num_ps: Parameter servers.
        built: The finalized graph.
        mirrors: Restore points in memory; None: there are none.
        traffic: Traffic between each server and a worker in a step, by index.
    """

    number: int
    num_ps: int
    built: TrainGraph
    mirrors: Mirrors | None
    traffic: Mapping[int, Traffic]


def build_layout(
    build: BuildFn,
    options: JobOptions,
    num_ps: int,
    number: int,
    task: LoopContext,
    source: InputSource | None = None,
) -> Layout:
    """Builds the chief's graph.

    Args:
        build: The user's build function.
        options: The job.
        num_ps: Parameter servers.
        number: Of the layout.
        task: Where the training loop runs.
        source: Counts the files of the input; None: they are counted each time.

    Raises:
        UsageError: See `build_train_graph`.
        JobFailed: The build function failed.
    """
    built = build_train_graph(
        build,
        TaskContext(
            *("chief", 0, options.trainers, num_ps, options.sync, options.params),
            input=source or WholeInput(),
        ),
        worker_device=CHIEF.device,
        options=GraphOptions(
            aggregate=options.aggregate,
            data_plane=options.data_plane,
            defaults=options,
        ),
        task=task,
        layout=number,
    )
    with built.container():
        mirrors = Mirrors(built, num_ps, CHIEF) if options.mirror_secs else None
        prepare(built.graph, options.data_plane, built.steps)
    built.graph.finalize()
    return Layout(number, num_ps, built, mirrors, find_traffic(built.graph, [built.train_op]))
