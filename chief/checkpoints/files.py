"""The files of checkpoints: their names, their completeness, and the files beside them."""

from __future__ import annotations

import json
import logging
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from ...cluster.logdir.direct import DirectLogDirectory
from ...cluster.logdir.errors import LOGDIR_ERRORS
from ...cluster.logdir.interface import LogDirectory, open_logdir
from ...loops.hooks import BASENAME
from ...reasons import reason_of

log = logging.getLogger(__name__)

# TensorFlow's own record of the checkpoints in a directory.
STATE_FILE = "checkpoint"
CORRUPT_FOLDER = "corrupt"

_NAME = re.compile(re.escape(BASENAME) + r"-(\d+)\.(.+)$")
# Name patterns, of TensorFlow and `temporary_name`, of files that are not in their place yet.
_TEMPORARY = re.compile(
    rf"{re.escape(BASENAME)}-\d+(\..+\.tempstate\d+|_temp.*)$"
    rf"|{STATE_FILE}\.tmp[0-9a-f]{{32}}$"
    rf"|\.({STATE_FILE}|{re.escape(BASENAME)}-\d+\..+)-[0-9a-f]{{32}}$"
)
_PART = re.compile(r"data-\d{5}-of-\d{5}$|job\.json$")


@dataclass(frozen=True)
class Checkpoint:
    """A whole checkpoint.

    Attributes:
        path: Its prefix in the log directory.
        global_step: The step it was taken at.
        written: Unix time in seconds.
        seconds: Time that the write took; 0 for a restored one.
        sidecar: The job's state at that step, beside the model; None if none was kept.
    """

    path: str
    global_step: int
    written: float
    seconds: float
    sidecar: Mapping[str, Any] | None = None


class CorruptFile(ValueError):
    """A file that goes with a checkpoint is damaged."""


def find_checkpoints(logdir: str | LogDirectory) -> list[tuple[int, str]]:
    """Returns `(global step, path)` of the checkpoints in a log directory, newest first.

    A checkpoint's index is written last, and is renamed or copied into place. So a checkpoint with
    an index was written to its end.
    """
    storage = open_logdir(logdir)
    found = (_NAME.match(name) for name in storage.names())
    steps = sorted({int(m[1]) for m in found if m and m[2] == "index"}, reverse=True)
    return [(step, str(tf.io.gfile.join(storage.logdir, name_of(step)))) for step in steps]


def name_of(step: int) -> str:
    """Returns a checkpoint's name, with which the names of its files begin."""
    return f"{BASENAME}-{step}"


def step_of(path: str) -> int:
    """Returns the global step that a checkpoint's name ends with."""
    return int(path.rpartition("-")[2])


def local_path(storage: LogDirectory, step: int) -> str:
    """Returns a checkpoint's path for TensorFlow's readers and writers in this process."""
    return str(tf.io.gfile.join(storage.directory, name_of(step)))


def files_of(step: int, names: list[str]) -> list[str]:
    """Returns those of `names` that belong to a checkpoint, its index last."""
    files = [name for name in names if (found := _NAME.match(name)) and int(found[1]) == step]
    files = [name for name in files if not _TEMPORARY.match(name)]
    return sorted(files, key=lambda name: (name.endswith(".index"), name))


def write_sidecar(storage: DirectLogDirectory, step: int, sidecar: Mapping[str, Any]) -> None:
    """Writes the job's state for a checkpoint that is about to be written."""
    content = json.dumps(sidecar, sort_keys=True)
    text = json.dumps({"crc32": zlib.crc32(content.encode()), "job": sidecar}, indent=2)
    storage.write_text(_sidecar_file(step), text + "\n")


def read_sidecar(storage: LogDirectory, step: int) -> Mapping[str, Any] | None:
    """Returns the job's state of a checkpoint; None when it was saved without.

    Raises:
        CorruptFile: The file is damaged.
    """
    text = storage.read_text(_sidecar_file(step))
    if text is None:
        return None
    try:
        kept = json.loads(text)
        content, expected = json.dumps(kept["job"], sort_keys=True), kept["crc32"]
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptFile(f"{_sidecar_file(step)} is corrupt: {reason_of(error)}") from error
    if zlib.crc32(content.encode()) != expected:
        raise CorruptFile(f"{_sidecar_file(step)} is corrupt: its checksum does not match")
    return dict(kept["job"])


def publish(storage: LogDirectory, step: int) -> None:
    """Publishes a checkpoint that was just written in the log directory, its index last.

    Earlier ones need no place on this machine any more.
    """
    here = DirectLogDirectory(storage.directory).names()
    files = files_of(step, here)
    storage.publish(*files, *({STATE_FILE} & set(here)))
    storage.release(*(name for name in here if _NAME.match(name) and name not in files))


def drop(storage: LogDirectory, steps: list[int]) -> None:
    """Removes all files of checkpoints that are not to be kept, each one's index first."""
    try:
        names = storage.names() if steps else []
        for step in steps:
            storage.remove(*reversed(files_of(step, names)))
    except LOGDIR_ERRORS as error:
        log.warning("old checkpoints in %s were not removed: %s", storage.logdir, reason_of(error))


def remove_leftovers(storage: LogDirectory) -> list[str]:
    """Removes leftovers of broken saves, and returns their names.

    Call it while no other process writes into the directory. A file that cannot be removed stays:
    it is never taken for a checkpoint.
    """
    try:
        names = storage.names()
        whole = {int(m[1]) for m in map(_NAME.match, names) if m and m[2] == "index"}
        left = [name for name in names if _is_leftover(name, whole)]
        storage.remove(*left)
    except LOGDIR_ERRORS as error:
        log.warning("leftovers in %s were not removed: %s", storage.logdir, reason_of(error))
        return []
    if left:
        log.info("removed leftovers of broken saves: %s", ", ".join(sorted(left)))
    return left


def set_aside(storage: LogDirectory, step: int) -> bool:
    """Moves a corrupt checkpoint into `CORRUPT_FOLDER`, its index first; says whether it could."""
    files = files_of(step, storage.names())
    try:
        for name in reversed(files):
            storage.move(name, CORRUPT_FOLDER)
    except LOGDIR_ERRORS as error:
        log.warning("%s stays where it is: %s", name_of(step), reason_of(error))
        return False
    return True


def write_state(storage: LogDirectory, steps: list[int]) -> None:
    """Tells TensorFlow's readers which checkpoints there are, oldest first."""
    lines = [f'model_checkpoint_path: "{name_of(steps[-1])}"']
    lines += [f'all_model_checkpoint_paths: "{name_of(step)}"' for step in steps]
    try:
        storage.write_text(STATE_FILE, "\n".join(lines) + "\n")
    except LOGDIR_ERRORS as error:
        log.warning("%s was not brought up to date: %s", STATE_FILE, reason_of(error))


def _sidecar_file(step: int) -> str:
    return f"{name_of(step)}.job.json"


def _is_leftover(name: str, whole: set[int]) -> bool:
    if _TEMPORARY.match(name):
        return True
    found = _NAME.match(name)
    return found is not None and int(found[1]) not in whole and bool(_PART.match(found[2]))
