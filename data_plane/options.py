"""`DataPlane`: how parameters are stored, and how tensors cross between workers and servers."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Annotated, Any

from ..errors import UsageError
from ..option import Option, check_ranges
from ..protos import membership_pb2 as pb

BUCKET_BYTES = 4 << 20
STORAGES = ("plain", "flat")
WIRE_DTYPES = ("float32", "bfloat16")
_STORED = "How parameters are stored and sent"
_INEXACT = "Trading exactness for speed"


@dataclass(frozen=True, kw_only=True)
class DataPlane:
    """The storage of parameters, and the transfers between workers and parameter servers.

    The first three change no result: the weights are those of the graph as it was built, to the
    last bit. The others trade exactness for speed, and are off by default.

    Attributes:
        transfer_bucket_bytes: Bytes of a bucket, in which small tensors cross together. A tensor
            of more than 1/16 of it crosses alone, one of 8 buckets or more in pieces. With 0 each
            tensor crosses by itself, as in TensorFlow.
        storage: "plain": each variable by itself; "flat": variables on one parameter server are
            slices of a few large ones. Checkpoints are the same for both.
        max_shard_bytes: Bytes above which a variable of `tf.compat.v1.get_variable` is partitioned
            over the parameter servers; None: never.
        wire_dtype: "bfloat16" has float32 tensors cross with half the bytes; parameters and
            optimizer stay float32.
        stale_pull: True if a step computes with the parameters that were read during the step
            before, so that reading and computing overlap.
        local_steps: Steps that a worker makes on its own copy of the parameters before it pushes
            their sum; 1: each step is pushed.
        max_staleness: Async: steps that a worker may be ahead of the slowest one; None: any.
        top_k: Fraction of a gradient's largest entries that is pushed; the rest is added to
            the next gradient. None: all of it.

    Raises:
        UsageError: A value is out of range, or two options make no sense together.
    """

    transfer_bucket_bytes: Annotated[
        int,
        Option(
            help="Bucket in which small tensors cross together; 0: each tensor by itself.",
            unit="bytes",
            panel=_STORED,
            least=0,
        ),
    ] = BUCKET_BYTES
    storage: Annotated[
        str,
        Option(
            help="flat: variables are slices of a few large ones.", choices=STORAGES, panel=_STORED
        ),
    ] = "plain"
    max_shard_bytes: Annotated[
        int | None,
        Option(
            help="Partition variables above this size over the parameter servers; default: none.",
            unit="bytes",
            panel=_STORED,
            least=1,
        ),
    ] = None
    wire_dtype: Annotated[
        str,
        Option(help="bfloat16: half the bytes cross.", choices=WIRE_DTYPES, panel=_INEXACT),
    ] = "float32"
    stale_pull: Annotated[
        bool,
        Option(help="Async: compute with parameters read during the step before.", panel=_INEXACT),
    ] = False
    local_steps: Annotated[
        int,
        Option(
            help="Async: steps on a worker's own copy between two pushes.",
            unit="steps",
            panel=_INEXACT,
            least=1,
        ),
    ] = 1
    max_staleness: Annotated[
        int | None,
        Option(
            help="Async: steps that a worker may be ahead of the slowest; default: any.",
            unit="steps",
            panel=_INEXACT,
            least=0,
        ),
    ] = None
    top_k: Annotated[
        float | None,
        Option(
            help="Async: fraction of a gradient's largest entries that is pushed; default: all.",
            panel=_INEXACT,
        ),
    ] = None

    def __post_init__(self) -> None:
        check_ranges(self)
        if self.top_k is not None and not 0.0 < self.top_k <= 1.0:
            raise UsageError(f"--top-k {self.top_k:g}: expected a fraction above 0 and up to 1")
        check_combination(self, sync=False)

    def to_proto(self) -> pb.DataPlane:
        """Converts the options to a message."""
        return pb.DataPlane(**asdict(self))

    @classmethod
    def from_proto(cls, message: pb.DataPlane) -> DataPlane:
        """Converts a message to the options."""
        values: dict[str, Any] = {each.name: getattr(message, each.name) for each in fields(cls)}
        for name in ("max_shard_bytes", "max_staleness", "top_k"):
            if not message.HasField(name):
                values[name] = None
        return cls(**values)


def check_combination(options: DataPlane, sync: bool) -> None:
    """Refuses options that make no sense together.

    Args:
        options: How tensors cross.
        sync: Whether gradients of the workers are aggregated.

    Raises:
        UsageError: The message names both options and the remedy.
    """
    if sync:
        for name, value in async_only(options).items():
            raise UsageError(
                f"{name}={value} and sync training are both asked for, but in sync mode all "
                f"workers compute on the same, newest parameters: use --async, or leave {name} out"
            )
    if options.local_steps > 1 and options.stale_pull:
        raise UsageError(
            f"local_steps={options.local_steps} and stale_pull=True are both asked for, but local "
            "steps read no parameters from the servers: leave one of them out"
        )
    if options.local_steps > 1 and options.top_k is not None:
        raise UsageError(
            f"local_steps={options.local_steps} and top_k={options.top_k:g} are both asked for, "
            "but local steps push no gradients: leave one of them out"
        )


def lagging(options: DataPlane) -> dict[str, Any]:
    """Returns the options given, by name, with which a worker computes on older parameters."""
    values = {
        "local_steps": options.local_steps if options.local_steps > 1 else None,
        "max_staleness": options.max_staleness,
    }
    return {name: value for name, value in values.items() if value is not None}


def async_only(options: DataPlane) -> dict[str, Any]:
    """Returns the options given, by name, that only async training can have."""
    values = {
        "stale_pull": options.stale_pull or None,
        **lagging(options),
        "top_k": options.top_k,
    }
    return {name: value for name, value in values.items() if value is not None}
