"""Log directories that TensorFlow has no file system for: files go by way of this machine."""

from __future__ import annotations

import functools
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import fsspec

from ...errors import UsageError
from ...reasons import reason_of
from .direct import temporary_name

log = logging.getLogger(__name__)


class StagedLogDirectory:
    """A log directory behind any URL that fsspec knows.

    TensorFlow writes into a temporary directory of this machine, made at its first use. Complete
    files there are copied, so the log directory never has half a checkpoint.

    Args:
        logdir: The URL.

    Raises:
        UsageError: fsspec does not know the scheme, or lacks a package for it.
    """

    def __init__(self, logdir: str) -> None:
        self.logdir = logdir.rstrip("/")
        try:
            self._files, self._root = fsspec.core.url_to_fs(self.logdir)
        except (ImportError, ValueError) as error:
            raise UsageError(
                f"--logdir {logdir!r} cannot be reached: {reason_of(error)}"
            ) from error
        self._published: dict[str, tuple[int, int]] = {}
        self._staging: str | None = None

    @functools.cached_property
    def directory(self) -> str:
        """A directory of this machine."""
        self._staging = tempfile.mkdtemp(prefix="paramserve-")
        return self._staging

    def prepare(self) -> None:
        """Creates the log directory, if it is not there."""
        with self._naming_errors(""):
            self._files.makedirs(self._root, exist_ok=True)

    def names(self) -> list[str]:
        """Returns the names of the files in the log directory."""
        with self._naming_errors(""):
            self._files.invalidate_cache(self._root)
            try:
                paths = self._files.ls(self._root, detail=False)
            except FileNotFoundError:
                return []
        return [path.rstrip("/").rpartition("/")[2] for path in paths]

    def modified(self, name: str) -> float:
        """Returns the time of a file's last write; now, if the file system has none."""
        with self._naming_errors(name):
            try:
                return float(self._files.modified(self._there(name)).timestamp())
            except NotImplementedError:
                return time.time()

    def read_text(self, name: str) -> str | None:
        """Returns the content of a small file."""
        with self._naming_errors(name):
            try:
                return bytes(self._files.cat_file(self._there(name))).decode()
            except FileNotFoundError:
                return None

    def write_text(self, name: str, text: str) -> None:
        """Writes a small file."""
        temporary = self._there(temporary_name(name))
        self.prepare()
        with self._naming_errors(name):
            self._files.pipe_file(temporary, text.encode())
            self._files.mv(temporary, self._there(name))

    def fetch(self, *names: str) -> None:
        """Downloads files."""
        for name in names:
            with self._naming_errors(name):
                self._files.get_file(self._there(name), str(self._here(name)))
            self._published[name] = self._stamp(name)

    def publish(self, *names: str) -> None:
        """Uploads the files that have changed since."""
        self.prepare()
        for name in names:
            stamp = self._stamp(name)
            if self._published.get(name) == stamp:
                continue
            with self._naming_errors(name):
                self._files.put_file(str(self._here(name)), self._there(name))
            self._published[name] = stamp

    def release(self, *names: str) -> None:
        """Removes the copies on this machine, if they were uploaded."""
        for name in names:
            if name in self._published:
                self._remove_here(name)

    def remove(self, *names: str) -> None:
        """Removes files, here and there."""
        for name in names:
            self._remove_here(name)
            with self._naming_errors(name), suppress(FileNotFoundError):
                self._files.rm_file(self._there(name))

    def move(self, name: str, folder: str) -> None:
        """Moves a file into a folder there, and removes it here."""
        self._remove_here(name)
        with self._naming_errors(name):
            self._files.makedirs(self._there(folder), exist_ok=True)
            self._files.mv(self._there(name), self._there(f"{folder}/{name}"))

    def close(self) -> None:
        """Removes the directory on this machine, unless something in it was not uploaded."""
        if self._staging is None:
            return
        staging, self._staging = self._staging, None
        names = sorted(os.listdir(staging))
        left = [name for name in names if self._published.get(name) != self._stamp(name)]
        if left:
            log.warning("not uploaded to %s, left in %s: %s", self.logdir, staging, left)
        else:
            shutil.rmtree(staging, ignore_errors=True)

    def _remove_here(self, name: str) -> None:
        self._published.pop(name, None)
        if self._staging is not None:
            self._here(name).unlink(missing_ok=True)

    def _stamp(self, name: str) -> tuple[int, int]:
        """Tells one content of a file on this machine from the next: bytes and nanoseconds."""
        stat = self._here(name).stat()
        return stat.st_size, stat.st_mtime_ns

    def _here(self, name: str) -> Path:
        return Path(self.directory, name)

    def _there(self, name: str) -> str:
        return f"{self._root}/{name}"

    @contextmanager
    def _naming_errors(self, name: str) -> Iterator[None]:
        """Converts errors of the file systems' own libraries to OSError."""
        try:
            yield
        except OSError:
            raise
        except Exception as error:
            where: Any = f"{self.logdir}/{name}" if name else self.logdir
            raise OSError(f"{where}: {reason_of(error)}") from error
