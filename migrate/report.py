"""The report of names without a new place, with remedies for the script's author."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from .names import REMEDIES, place


class Finding(NamedTuple):
    """One name that was left unchanged."""

    line: int
    """Counted from 1, as is `column`."""
    column: int
    name: str
    """Its documented name: "tf.contrib.slim.conv2d", however the script wrote it."""
    remedy: str


def remedy(name: str) -> str:
    """Returns the remedy for a canonical name that has no place."""
    if ".python." in name:
        return _private_remedy(name)
    parts = name.split(".")
    known = (REMEDIES.get(".".join(parts[:length])) for length in range(len(parts), 0, -1))
    return next((each for each in known if each), "is not in TensorFlow 2's tf.compat.v1")


def _private_remedy(name: str) -> str:
    last = name.rpartition(".")[2]
    public = place(f"tf.train.{last}")
    if public is not None and not public[1]:
        return f"is private to TensorFlow: use {public[0].path}"
    return "is private to TensorFlow: use the public name"


def format_findings(path: str, findings: Iterable[Finding]) -> list[str]:
    """Formats a line for each name: FILE:LINE:COLUMN, name, remedy, and other places."""
    by_name: dict[tuple[str, str], list[Finding]] = {}
    for finding in sorted(findings):
        by_name.setdefault((finding.name, finding.remedy), []).append(finding)
    lines = []
    for (name, advice), (first, *others) in by_name.items():
        also = ", ".join(f"{each.line}:{each.column}" for each in others)
        position = f"{path}:{first.line}:{first.column}"
        lines.append(f"{position}: {name}: {advice}{f' (also {also})' if also else ''}")
    return lines
