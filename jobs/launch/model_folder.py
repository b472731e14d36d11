"""The folder of a model's file, as it is sent to the nodes of a Ray cluster."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass

# Ray takes no more, and packs all of it before it says so.
MAX_BYTES = 100 * 1024 * 1024


@dataclass(frozen=True)
class ModelFolder:
    """A folder to send.

    Attributes:
        path: The folder.
        excludes: What is not sent, as in a `.gitignore`: hidden folders, virtual environments.
        excess: Why it is too large, in words; empty if it is not.
    """

    path: str
    excludes: tuple[str, ...]
    excess: str


def survey(path: str) -> ModelFolder:
    """Looks at the sizes of a folder's files, until there are too many bytes."""
    excludes: list[str] = []
    sizes: Counter[str] = Counter()
    for folder, subfolders, files in os.walk(path):
        for name in list(subfolders):
            if name.startswith(".") or os.path.exists(os.path.join(folder, name, "pyvenv.cfg")):
                subfolders.remove(name)
                excludes.append("/" + os.path.relpath(os.path.join(folder, name), path))
        for name in files:
            file = os.path.join(folder, name)
            part = os.path.relpath(file, path).partition(os.sep)[0]
            sizes[part] += os.lstat(file).st_size
        if sizes.total() > MAX_BYTES:
            [(largest, size)] = sizes.most_common(1)
            excess = f"more than {MAX_BYTES >> 20} MB, of which {size >> 20} MB are in {largest!r}"
            return ModelFolder(path, tuple(excludes), excess)
    return ModelFolder(path, tuple(excludes), "")
