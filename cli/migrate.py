"""`paramserve migrate`: rewrites scripts for TensorFlow 1, or shows how it would."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import arguments as args

Scripts = Annotated[
    list[Path],
    typer.Argument(help="Scripts, or directories to walk for *.py.", metavar="FILE..."),
]
Write = Annotated[
    bool,
    typer.Option(
        "--write",
        help="Change the files in place rather than show a diff. No copy is kept; the diff, "
        "saved before, undoes it with `patch -R`.",
    ),
]
KeepImport = Annotated[
    bool,
    typer.Option(
        "--keep-import",
        help="Leave `import tensorflow as tf`. Without it, it becomes `import "
        "tensorflow.compat.v1 as tf`, followed by `tf.disable_v2_behavior()`.",
    ),
]


def migrate(
    files: Scripts, write: Write = False, keep_import: KeepImport = False, debug: args.Debug = False
) -> None:
    """Rewrites scripts for TensorFlow 1: imports and names of tf.contrib and tf.train.

    Shows the changes as a diff and writes nothing, unless told to. Names without a successor stay
    unchanged, and are listed on standard error with their places and remedies.
    """
    with args.ending_with_exit_code(debug):
        from .migration import migrate_files  # The parser of scripts takes time to load.

        migrate_files(files, write=write, keep_import=keep_import)
