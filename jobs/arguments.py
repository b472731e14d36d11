"""A job's options as arguments of `paramserve chief`, for whoever starts one."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

from ..data_plane.options import DataPlane
from .options import JobOptions


def chief_arguments(options: JobOptions) -> tuple[str, ...]:
    """The options as arguments of `paramserve chief`."""
    arguments: list[str] = ["--sync" if options.sync else "--async"]
    arguments += ["--ps-on-workers"] if options.ps_on_workers else []
    arguments += ["--chief-trains"] if options.chief_trains else []
    arguments += [] if options.evaluate else ["--no-eval"]
    values = {
        "ps": options.num_ps,
        "workers": options.num_workers,
        "logdir": options.logdir
        if "://" in options.logdir
        else str(Path(options.logdir).resolve()),
        "replicas-to-aggregate": options.replicas_to_aggregate,
        "max-steps": options.max_steps,
        "save-checkpoint-secs": options.save_checkpoint_secs or 0,
        "save-checkpoint-steps": options.save_checkpoint_steps,
        "keep-checkpoints": options.keep_checkpoints,
        "save-summaries-steps": options.save_summaries_steps,
        "max-wait-secs": options.max_wait_secs,
        "heartbeat-secs": options.heartbeat_secs,
        "lease-secs": options.lease_secs,
        "mirror-secs": options.mirror_secs,
        "recovery": options.recovery,
        "stall-secs": options.stall_secs,
        "max-bad-records": options.max_bad_records,
    }
    for name, value in values.items():
        if value is not None:
            arguments += [f"--{name}", str(value)]
    for key, param in options.params.items():
        arguments += ["--param", f"{key}={param}"]
    return (*arguments, *_data_plane_arguments(options.data_plane))


def _data_plane_arguments(data_plane: DataPlane) -> list[str]:
    """What is not as usual, as arguments."""
    arguments: list[str] = []
    for each in fields(data_plane):
        value = getattr(data_plane, each.name)
        if value != each.default:
            option = "--" + each.name.replace("_", "-")
            arguments += [option] if value is True else [option, str(value)]
    return arguments
