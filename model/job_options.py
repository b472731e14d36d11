"""Options of a job that its model meets: what it is, its parameters, defaults of its loop."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated

from ..option import Option


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """The model, and what is handed to it.

    Attributes:
        model: Reference to the build function, as MODULE:FUNCTION or FILE.py:FUNCTION.
        params: The build function's `task.params`.
    """

    model: str
    params: Annotated[
        Mapping[str, str],
        Option(
            flag="--param",
            metavar="K=V",
            help="KEY=VALUE for the build function; may be repeated.",
        ),
    ] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class JobDefaults:
    """Options of a job that are defaults of arguments which `loop_args` leaves out.

    Attributes:
        save_checkpoint_secs: Seconds between two checkpoints; None: none by time.
        save_summaries_steps: Global steps between two summaries; 0: none.
        keep_checkpoints: Newest checkpoints to keep; 0 keeps all.
    """

    save_checkpoint_secs: Annotated[
        float | None,
        Option(
            help="Seconds between checkpoints; 0: none by time.",
            unit="seconds",
            is_positive=True,
            zero_is_none=True,
        ),
    ] = 600.0
    save_summaries_steps: Annotated[
        int, Option(help="Global steps between summaries; 0: none.", unit="steps", least=0)
    ] = 100
    keep_checkpoints: Annotated[
        int, Option(help="Newest checkpoints to keep; 0: all.", least=0)
    ] = 5
