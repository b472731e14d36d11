"""PyTorch's `DistributedDataParallel` over gloo: all-reduce, no parameter servers."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from ..task import Task
from ..workloads.workload import Workload


class _Model(torch.nn.Module):
    """The workload's variables; forward is its loss."""

    def __init__(self, workload: Workload) -> None:
        super().__init__()
        self._loss = workload.torch_loss
        self.dense = torch.nn.ParameterDict()
        # Only in a module of this class does the wrapper expect gradients of a few rows.
        self.tables = torch.nn.ModuleDict()
        for spec in workload.variables:
            value = torch.empty(spec.shape).uniform_(-spec.scale, spec.scale)
            if spec.name in workload.sparse:
                rows, dim = spec.shape
                table = torch.nn.Embedding(rows, dim, sparse=True, _weight=value)
                self.tables[spec.name] = table
            else:
                self.dense[spec.name] = torch.nn.Parameter(value)

    def forward(self, batch: dict[str, Any]) -> Any:
        assert self._loss is not None
        tables = {name: table.weight for name, table in self.tables.items()}
        return self._loss({**dict(self.dense), **tables}, batch)


def run(task: Task) -> None:
    """Runs one of the equal processes."""
    torch.set_num_threads(task.threads)
    torch.set_flush_denormal(True)
    if task.network is not None:
        os.environ["GLOO_SOCKET_IFNAME"] = "eth0"
    distributed.init_process_group(
        "gloo",
        init_method=f"tcp://{task.addresses['worker'][0]}",
        rank=task.index,
        world_size=len(task.addresses["worker"]),
        timeout=timedelta(seconds=task.max_wait_secs),
    )
    task.is_open()
    step = _make_step(task.find_workload())
    # Each step is one update of the model, by all of them.
    task.train(step, None)


def _make_step(workload: Workload) -> Callable[[], None]:
    pool = {name: torch.from_numpy(values) for name, values in workload.input_pool().items()}
    size = len(next(iter(pool.values())))
    # `gradient_as_bucket_view` saves a copy, as its guide to tuning advises.
    model = DistributedDataParallel(_Model(workload), gradient_as_bucket_view=not workload.sparse)
    optimizer = torch.optim.SGD(model.parameters(), lr=workload.learning_rate)

    def step() -> None:
        index = random.randrange(size)
        optimizer.zero_grad(set_to_none=True)
        model({name: values[index] for name, values in pool.items()}).backward()
        optimizer.step()

    return step
