"""The monitors of a training that was given none."""

from __future__ import annotations

from typing import Any

from .base import BaseMonitor
from .printing import PrintTensor
from .summaries import SummarySaver


def get_default_monitors(
    loss_op: Any = None,
    summary_op: Any = None,
    save_summary_steps: int = 100,
    output_dir: str | None = None,
    summary_writer: Any = None,
) -> list[BaseMonitor]:
    """Makes the monitors that print the loss and write the summaries.

    Args:
        loss_op: A scalar tensor to log at the first step, every 100 steps and at the last step;
            None logs nothing.
        summary_op: A scalar string tensor with a serialized summary; None writes nothing.
        save_summary_steps: Steps between summaries.
        output_dir: Where to write summaries, if no writer is given.
        summary_writer: What writes them.
    """
    monitors: list[BaseMonitor] = []
    if loss_op is not None:
        monitors.append(PrintTensor({"loss": loss_op.name}))
    if summary_op is not None:
        monitors.append(
            SummarySaver(
                summary_op,
                save_steps=save_summary_steps,
                output_dir=output_dir,
                summary_writer=summary_writer,
            )
        )
    return monitors
