"""The saver of a job: all of the model, under the names and limits of the model's own saver."""

from __future__ import annotations

import logging
from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from typing import Any

import tensorflow as tf

from ..errors import UsageError
from ..tf_internals import given_variables, is_in_parts, names_in_checkpoints

v1 = tf.compat.v1
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class JobSaver:
    """The saver of everything that the parameter servers hold.

    Attributes:
        saver: The `tf.compat.v1.train.Saver`, which writes checkpoints in one piece.
        renamed: Names in checkpoints that the model's own saver chose, by the usual names.
    """

    saver: Any
    renamed: Mapping[str, str] = field(default_factory=dict)

    def name(self, usual: str) -> str:
        """Returns the name in checkpoints of a variable that is usually saved as `usual`."""
        return self.renamed.get(usual, usual)

    def find(self, variables: Any, there: Container[str]) -> dict[str, Any]:
        """Finds variables of another graph, by their names in a checkpoint that has `there`."""
        return {
            usual if usual in there else self.name(usual): variable
            for usual, variable in names_in_checkpoints(variables).items()
        }


def make_saver(scaffold: Any, device: str, keep: int) -> JobSaver:
    """Makes the job's saver in the current graph, which has to be complete.

    A saver of the model's own was made before the optimizer's slots, or knows only some variables.
    A job has to save all of them to continue from its checkpoints. So it takes that saver's names,
    number of checkpoints and hours between checkpoints to keep, and adds the missing variables.

    Args:
        scaffold: The loop's `Scaffold`, which may have a saver, as may the collection `SAVERS`.
        device: The task that writes. No parameter server needs the checkpoint directory.
        keep: Checkpoints to keep if the model has no saver of its own; 0 keeps all.

    Raises:
        UsageError: The model's saver saves in a way of its own, or gives a variable the name of
            another one.
    """
    own = scaffold.saver or next(iter(v1.get_collection(v1.GraphKeys.SAVERS)), None)
    if own is None:
        return JobSaver(_make(None, device, max_to_keep=keep))
    _check_kind(own)
    if own.saver_def is None:
        own.build()  # For hooks that use it; a scaffold would have done so.
    entries, renamed = _complete(own)
    limits = {
        "max_to_keep": own.saver_def.max_to_keep,
        "keep_checkpoint_every_n_hours": own.saver_def.keep_checkpoint_every_n_hours,
    }
    return JobSaver(_make(entries, device, **limits), renamed)


def _make(entries: Any, device: str, **limits: Any) -> Any:
    with v1.device(f"{device}/cpu:0"):
        return v1.train.Saver(entries, save_relative_paths=True, pad_step_number=False, **limits)


def _check_kind(own: Any) -> None:
    stock = v1.train.Saver
    if not isinstance(own, stock) or type(own).save is not stock.save:
        raise UsageError(
            f"the model's saver is a {type(own).__name__}, expected a tf.compat.v1.train.Saver: "
            "the service writes checkpoints itself; save others with a hook"
        )


def _complete(own: Any) -> tuple[dict[str, Any], dict[str, str]]:
    """Returns the objects to save by name, and the names that differ from the usual ones."""
    usual = names_in_checkpoints(
        [*v1.global_variables(), *v1.get_collection(v1.GraphKeys.SAVEABLE_OBJECTS)]
    )
    given = given_variables(own) or {}
    given = dict(given) if isinstance(given, dict) else names_in_checkpoints(given)
    named = {part: name for name, value in given.items() for part in _parts(value)}
    taken = {name: named.get(_parts(value)[0]) for name, value in usual.items()}
    added = {name: usual[name] for name, other in taken.items() if other is None}
    if clash := sorted(added.keys() & given.keys()):
        raise UsageError(
            f"the model's saver saves {_parts(given[clash[0]])[0]!r} as {clash[0]!r}, but the "
            "service saves all variables, and there is another one of that name: give it another "
            "name, or leave the saver out of the scaffold"
        )
    if added:
        log.info("saved as well, so that the job can resume: %s", ", ".join(sorted(added)))
    renamed = {name: other for name, other in taken.items() if other not in (None, name)}
    return {**given, **added}, renamed


def _parts(value: Any) -> list[str]:
    """Returns the names of the ops saved under one name, such as the slices of a variable."""
    return [_name_of(each) for each in (value if is_in_parts(value) else [value])]


def _name_of(saved: Any) -> str:
    op = saved
    while not isinstance(op, tf.Operation):
        if not hasattr(op, "op"):
            return str(saved.name)  # A table, for example.
        op = op.op
    return str((op.inputs[0].op if op.type == "ReadVariableOp" else op).name)
