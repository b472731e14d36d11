"""Scripts on disk: the search for them, and reading and writing them byte for byte."""

from __future__ import annotations

import os
import shutil
import tokenize
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ..errors import UsageError


@dataclass(frozen=True)
class Script:
    """The text of a file, with the encoding to write it back."""

    path: Path
    text: str
    encoding: str


def find_scripts(paths: Iterable[Path]) -> Iterator[Path]:
    """Yields the given files, and those ending in `.py` below directories, in order.

    Hidden directories and virtual environments are passed over.
    """
    for path in paths:
        if not path.is_dir():
            yield path
            continue
        for folder, folders, files in os.walk(path):
            folders[:] = sorted(
                each
                for each in folders
                if not each.startswith(".") and not Path(folder, each, "pyvenv.cfg").exists()
            )
            yield from (Path(folder, name) for name in sorted(files) if name.endswith(".py"))


def read_script(path: Path) -> Script:
    """Reads a file in the encoding that it declares.

    Raises:
        UsageError: It cannot be read, or is no Python text.
    """
    if path.suffix == ".ipynb":
        raise UsageError(f"{path}: is a notebook; run `jupyter nbconvert --to script` first")
    try:
        with path.open("rb") as file:
            encoding, _ = tokenize.detect_encoding(file.readline)
        return Script(path, path.read_bytes().decode(encoding), encoding)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from error
    except (SyntaxError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: is no Python text: {error}") from error


def write_script(script: Script, text: str) -> None:
    """Puts a text in the place of a script, in one step, with the same encoding and mode.

    Raises:
        UsageError: The file cannot be written.
    """
    path = script.path.resolve()
    new = path.with_name(f".{path.name}.new")
    try:
        new.write_bytes(text.encode(script.encoding))
        shutil.copymode(path, new)
        new.replace(path)
    except OSError as error:
        new.unlink(missing_ok=True)
        raise UsageError(f"{script.path}: cannot be written: {error.strerror}") from error
