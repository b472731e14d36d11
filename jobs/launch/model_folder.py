"""The folder of a model's file, in the form sent to the nodes of a Ray cluster."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass

# Ray's limit; it packs the whole folder before it reports an excess.
MAX_BYTES = 100 * 1024 * 1024


@dataclass(frozen=True)
class ModelFolder:
    """A folder to send.

    Attributes:
        path: The folder.
        excludes: Patterns of files not to send, as in a `.gitignore`: hidden folders, virtual
            environments.
        excess: Description of an excessive size; empty if there is none.
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
