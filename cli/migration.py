"""The work of `paramserve migrate`, and its output."""

from __future__ import annotations

import difflib
import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import typer
from rich.console import Console
from rich.text import Text

from ..errors import UsageError
from ..migrate.files import Script, find_scripts, read_script, write_script
from ..migrate.names import Finding, format_findings
from ..migrate.rewrite import Migration, migrate_source

_COLOURS = {"+++": "bold", "---": "bold", "@@": "cyan", "+": "green", "-": "red"}


def migrate_files(files: Sequence[Path], *, write: bool, keep_import: bool) -> None:
    """Rewrites scripts, or shows the changes as a diff.

    Args:
        files: Scripts, or directories to walk for *.py.
        write: Whether to change the files.
        keep_import: Whether to leave `import tensorflow as tf`.

    Raises:
        UsageError: A script could not be read, parsed or written; the others are done.
    """
    _import_tensorflow()
    console = Console(highlight=False)
    failures = []
    for path in find_scripts(files):
        try:
            _migrate_file(path, console, write=write, keep_import=keep_import)
        except UsageError as error:
            failures.append(str(error))
    if len(failures) > 1:
        typer.echo("\n".join(failures[:-1]), err=True)
    if failures:
        raise UsageError(failures[-1])


def _import_tensorflow() -> None:
    """Imports TensorFlow, which the names are looked up in, without its start-up messages.

    They come from its C++ part, before any log level applies.
    """
    sys.stderr.flush()
    standard_error = os.dup(2)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
        try:
            importlib.import_module("tensorflow")
        finally:
            os.dup2(standard_error, 2)
            os.close(standard_error)


def _migrate_file(path: Path, console: Console, *, write: bool, keep_import: bool) -> None:
    script = read_script(path)
    try:
        migration = migrate_source(script.text, keep_import=keep_import)
    except UsageError as error:
        raise UsageError(f"{path}:{error}") from error
    findings: Sequence[Finding] = migration.findings
    if not write:
        _show_diff(script, migration, console)
    elif migration.after != migration.before:
        write_script(script, migration.after)
        typer.echo(f"rewrote {path}")
        # Lines have moved: the list has to fit the file as it is now.
        findings = migrate_source(migration.after, keep_import=keep_import).findings
    for line in format_findings(str(path), findings):
        typer.echo(line, err=True)


def _show_diff(script: Script, migration: Migration, console: Console) -> None:
    """Prints a unified diff that `patch` takes, in colours on a terminal."""
    lines = difflib.unified_diff(
        migration.before.splitlines(keepends=True),
        migration.after.splitlines(keepends=True),
        str(script.path),
        str(script.path),
    )
    for line in lines:
        text = line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n"
        if console.is_terminal:
            style = next((s for mark, s in _COLOURS.items() if line.startswith(mark)), "")
            console.print(Text(text, style), end="", soft_wrap=True)
        else:
            typer.echo(text, nl=False)
