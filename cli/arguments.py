"""Arguments that several commands share, and how a command ends."""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import fields
from typing import Annotated, Any

import typer

from ..cluster.startup_noise import without_noise
from ..data_plane.options import DataPlane
from ..errors import ExitCode, ParamserveError, UsageError
from ..jobs.options import JobOptions

Model = Annotated[
    str,
    typer.Argument(help="Build function, as MODULE:FUNCTION or FILE.py:FUNCTION.", metavar="MODEL"),
]
Ps = Annotated[int | None, typer.Option("--ps", help="Parameter servers; default: 1.")]
Workers = Annotated[int, typer.Option("--workers", help="Workers.")]
Sync = Annotated[
    bool, typer.Option("--sync/--async", help="Aggregate the workers' gradients into common steps.")
]
ReplicasToAggregate = Annotated[
    str | None,
    typer.Option(
        "--replicas-to-aggregate",
        metavar="N|all",
        help="Sync: gradients per global step; default: as many as planned workers. With fewer "
        "the others are backup workers; all: one of each worker that is there.",
    ),
]
MaxSteps = Annotated[
    int | None,
    typer.Option("--max-steps", help="Global step at which training ends; default: end of input."),
]
Logdir = Annotated[
    str, typer.Option("--logdir", help="Checkpoints, events and the job's own files.")
]
ChiefTrains = Annotated[
    bool, typer.Option("--chief-trains", help="The chief's process runs a worker as well.")
]
CheckpointSecs = Annotated[
    float,
    typer.Option("--save-checkpoint-secs", help="Seconds between checkpoints; 0: none by time."),
]
CheckpointSteps = Annotated[
    int | None, typer.Option("--save-checkpoint-steps", help="Global steps between checkpoints.")
]
KeepCheckpoints = Annotated[
    int, typer.Option("--keep-checkpoints", help="Newest checkpoints to keep; 0: all.")
]
SummariesSteps = Annotated[
    int, typer.Option("--save-summaries-steps", help="Global steps between summaries; 0: none.")
]
MaxWaitSecs = Annotated[
    float, typer.Option("--max-wait-secs", help="Seconds to wait for anything before giving up.")
]
HeartbeatSecs = Annotated[
    float, typer.Option("--heartbeat-secs", help="Seconds between two signs of life of a task.")
]
LeaseSecs = Annotated[
    float, typer.Option("--lease-secs", help="Seconds of silence after which a task is gone.")
]
_RECOVERY = "When something is lost or hangs"
MirrorSecs = Annotated[
    float,
    typer.Option(
        "--mirror-secs",
        help="Seconds of steps that the loss of a parameter server may cost: restore points lie in "
        "its neighbour's memory; 0: none, and it goes back to a checkpoint.",
        rich_help_panel=_RECOVERY,
    ),
]
Recovery = Annotated[
    str,
    typer.Option(
        "--recovery",
        metavar="rollback|partial",
        help="rollback: all go back to one restore point; partial (async): only the new one does.",
        rich_help_panel=_RECOVERY,
    ),
]
StallSecs = Annotated[
    float | None,
    typer.Option(
        "--stall-secs",
        help="Seconds without a step after which a hang is reported, and resolved after twice as "
        "long; default: 60 or three leases; 0: never.",
        rich_help_panel=_RECOVERY,
    ),
]
Spares = Annotated[
    int,
    typer.Option(
        "--spares",
        help="Parameter servers that stand by, to take a lost one's place at once.",
        rich_help_panel=_RECOVERY,
    ),
]
GraceSecs = Annotated[
    float,
    typer.Option(
        "--grace-secs",
        help="Seconds that a process may stay after SIGTERM, to leave in good order.",
        rich_help_panel=_RECOVERY,
    ),
]
MaxBadRecords = Annotated[
    int,
    typer.Option(
        "--max-bad-records",
        help="Records of an input in shards that may fail and be left out; more end the job.",
    ),
]
Evaluate = Annotated[
    bool, typer.Option("--eval/--no-eval", help="Evaluate the final checkpoint, if the model can.")
]
Params = Annotated[
    list[str] | None,
    typer.Option(
        "--param", help="KEY=VALUE for the build function; may be repeated.", metavar="K=V"
    ),
]
MetricsPort = Annotated[
    int, typer.Option("--metrics-port", help="Port of Prometheus metrics; 0 takes a free one.")
]
PsOnWorkers = Annotated[
    bool,
    typer.Option(
        "--ps-on-workers", help="Workers hold the parameters, a shard each; no parameter servers."
    ),
]

_DATA_PLANE = "How parameters are stored and sent"
_INEXACT = "Trading exactness for speed"
TransferBucketBytes = Annotated[
    int,
    typer.Option(
        "--transfer-bucket-bytes",
        help="Bucket in which small tensors cross together; 0: each tensor by itself.",
        rich_help_panel=_DATA_PLANE,
    ),
]
Storage = Annotated[
    str,
    typer.Option(
        "--storage",
        metavar="plain|flat",
        help="flat: variables are slices of a few large ones.",
        rich_help_panel=_DATA_PLANE,
    ),
]
MaxShardBytes = Annotated[
    int | None,
    typer.Option(
        "--max-shard-bytes",
        help="Partition variables above this size over the parameter servers; default: none.",
        rich_help_panel=_DATA_PLANE,
    ),
]
WireDtype = Annotated[
    str,
    typer.Option(
        "--wire-dtype",
        metavar="float32|bfloat16",
        help="bfloat16: half the bytes cross.",
        rich_help_panel=_INEXACT,
    ),
]
StalePull = Annotated[
    bool,
    typer.Option(
        "--stale-pull",
        help="Async: compute with parameters read during the step before.",
        rich_help_panel=_INEXACT,
    ),
]
LocalSteps = Annotated[
    int,
    typer.Option(
        "--local-steps",
        help="Async: steps on a worker's own copy between two pushes.",
        rich_help_panel=_INEXACT,
    ),
]
MaxStaleness = Annotated[
    int | None,
    typer.Option(
        "--max-staleness",
        help="Async: steps that a worker may be ahead of the slowest; default: any.",
        rich_help_panel=_INEXACT,
    ),
]
TopK = Annotated[
    float | None,
    typer.Option(
        "--top-k",
        help="Async: fraction of a gradient's largest entries that is pushed; default: all.",
        rich_help_panel=_INEXACT,
    ),
]
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks and debug logs.")]


def parse_params(params: Sequence[str] | None) -> dict[str, str]:
    """From KEY=VALUE to a dictionary.

    Raises:
        UsageError: One has no "=".
    """
    pairs = [param.partition("=") for param in params or ()]
    for key, equals, _ in pairs:
        if not key or not equals:
            raise UsageError(f"--param {key!r}: expected KEY=VALUE")
    return {key: value for key, _, value in pairs}


def parse_replicas(text: str | None) -> int | str | None:
    """A number where it is one; what else it may be is for `JobOptions` to say."""
    try:
        return text if text is None else int(text)
    except ValueError:
        return text


def job_options(
    *, save_checkpoint_secs: float, params: Sequence[str] | None, **values: Any
) -> JobOptions:
    """Options of a job from the command line's values."""
    return JobOptions(
        save_checkpoint_secs=save_checkpoint_secs or None,
        params=parse_params(params),
        data_plane=take_data_plane(values),
        **values,
    )


def take_data_plane(values: dict[str, Any]) -> DataPlane:
    """Takes out of the command line's values what concerns the data plane."""
    names = [each.name for each in fields(DataPlane)]
    return DataPlane(**{name: values.pop(name) for name in names if name in values})


def loading(debug: bool) -> AbstractContextManager[None]:
    """What TensorFlow is loaded in; only debug logs have what it says at every start."""
    return nullcontext() if debug else without_noise()


def set_up_logging(debug: bool) -> None:
    """Logs of this process go to its standard error."""
    level = logging.DEBUG if debug else logging.INFO
    logging.basicConfig(
        level=level,
        format="%(asctime)s %(levelname).1s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    # Whatever verbosity TensorFlow has, here or by the model.
    logging.getLogger("paramserve").setLevel(level)
    # TensorFlow's Python warnings are about names that this project exists to keep alive.
    for chatty in ("tensorflow", "absl", "h5py", "grpc", "asyncio"):
        logging.getLogger(chatty).setLevel(logging.WARNING if debug else logging.ERROR)


@contextmanager
def ending_with_exit_code(debug: bool) -> Iterator[None]:
    """A mistake or a failed job ends the command with one message and an exit code.

    The last line on standard error then begins with "error: ".
    """
    try:
        yield
    except ParamserveError as error:
        if debug:
            traceback.print_exc()
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(error.exit_code) from error
    except KeyboardInterrupt:
        raise typer.Exit(ExitCode.INTERRUPTED) from None
