"""The indexes of the input's files: counted once, by the chief or a worker, and kept."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable

from ...cluster.logdir.errors import LOGDIR_ERRORS
from ...cluster.logdir.interface import LogDirectory
from ...cluster.spec import Task
from ...errors import UsageError, WaitTimeout
from ...model.input.file_access import NothingFound
from ...model.input.file_index import FileIndex, FileQuery, count_files, describe_changes
from ...reasons import reason_of
from ..changes import Changes
from ..membership.membership import Membership

log = logging.getLogger(__name__)

_LOOK_SECS = 0.5


class FileCounts:
    """Counter of the files of a job's input, which a worker reads if the chief cannot.

    Every method may be called from any thread.

    Args:
        storage: The log directory, where indexes are kept.
        membership: The job's tasks.
        is_resumed: True if the job resumes from a checkpoint that counts batches of these files.
        max_wait_secs: Seconds to wait for a worker that counts.
        say: Receives progress messages for people; an empty text at the end.
        is_interrupted: Returns whether the job ends.
    """

    def __init__(
        self,
        storage: LogDirectory,
        membership: Membership,
        *,
        is_resumed: bool,
        max_wait_secs: float,
        say: Callable[[str], None],
        is_interrupted: Callable[[], bool],
    ) -> None:
        self._storage = storage
        self._membership = membership
        self._is_resumed = is_resumed
        self._max_wait_secs = max_wait_secs
        self._say = say
        self._is_interrupted = is_interrupted
        self._indexes: dict[FileQuery, FileIndex] = {}
        # Queries that workers have to count, with the counting worker.
        self._counters: dict[FileQuery, tuple[Task, str] | None] = {}
        self.changed = Changes()

    def find(self, query: FileQuery) -> FileIndex:
        """Returns the index of the files that all tasks train on.

        Raises:
            UsageError: There are none, one is damaged, or they are not those of the checkpoint.
            WaitTimeout: There are none here, and no worker has counted them in time.
        """
        with self.changed:
            if query in self._indexes:
                return self._indexes[query]
        kept = self._read(query)
        try:
            index = self._count(query, kept)
        except NothingFound as error:
            index = self._await_worker(query, error)
        changes = describe_changes(kept, index) if kept is not None else ""
        if changes and self._is_resumed:
            raise UsageError(
                f"the checkpoint in {self._storage.logdir} counts the records of files that have "
                f"changed since: {changes}. Restore the files, or give another --logdir"
            )
        if changes:
            log.warning("files have changed since they were counted: %s", changes)
        self._write(query, index)
        with self.changed:
            self._indexes[query] = index
            self.changed.notify_all()
        return index

    def find_here(self, query: FileQuery) -> FileIndex:
        """Returns the index of files that this process alone reads.

        Raises:
            UsageError: There are none, or one is damaged.
        """
        index = self._count(query, self._read(query))
        self._write(query, index)
        return index

    def answer(self, query: FileQuery, task: Task, incarnation: str) -> FileIndex | bool:
        """Answers a worker with the index, or whether it is to count.

        Args:
            query: The worker's query.
            task: The worker.
            incarnation: Its incarnation.
        """
        with self.changed:
            if query in self._indexes:
                return self._indexes[query]
            is_to_count = query in self._counters and not self._is_counted(query)
            if is_to_count:
                self._counters[query] = (task, incarnation)
            return is_to_count

    def take(self, query: FileQuery, index: FileIndex) -> None:
        """Takes over the index that a worker has counted."""
        with self.changed:
            self._indexes.setdefault(query, index)
            self.changed.notify_all()

    def _is_counted(self, query: FileQuery) -> bool:
        """Returns whether a live worker is counting."""
        counter = self._counters[query]
        record = self._membership.find_life(*counter) if counter is not None else None
        return record is not None and record.is_alive

    def _await_worker(self, query: FileQuery, missing: NothingFound) -> FileIndex:
        log.info("%s: a worker is to count the records", missing)
        self._say("no file of the input is on the chief's host: a worker counts the records")
        deadline = time.monotonic() + self._max_wait_secs
        with self.changed:
            self._counters[query] = None
            while query not in self._indexes:
                if self._is_interrupted():
                    raise missing
                if time.monotonic() > deadline:
                    raise WaitTimeout(
                        f"max_wait_secs={self._max_wait_secs:g} ran out: {missing}, and no worker "
                        "has counted the records of the input"
                    )
                self.changed.wait(_LOOK_SECS)
            self._say("")
            return self._indexes[query]

    def _count(self, query: FileQuery, kept: FileIndex | None) -> FileIndex:
        def say(text: str) -> None:
            log.info(text)
            self._say(text)

        index = count_files(query, kept, say=say, cancelled=self._is_interrupted)
        self._say("")
        return index

    def _read(self, query: FileQuery) -> FileIndex | None:
        try:
            text = self._storage.read_text(_file_of(query))
            return FileIndex.from_json(text) if text is not None else None
        except (*LOGDIR_ERRORS, json.JSONDecodeError, KeyError, TypeError) as error:
            log.warning("the index of the input's files is made again: %s", reason_of(error))
            return None

    def _write(self, query: FileQuery, index: FileIndex) -> None:
        try:
            self._storage.write_text(_file_of(query), index.to_json() + "\n")
        except LOGDIR_ERRORS as error:
            log.warning("the index of the input's files is not kept: %s", reason_of(error))


def _file_of(query: FileQuery) -> str:
    return f"input_index-{query.digest}.json"
