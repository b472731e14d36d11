"""Sync mode: finds the workers that wait for a token which was never issued.

A worker whose session broke in the middle of a step has lost its token; one whose session broke
while it waited for the next has not. Both then wait for the first token of a new session, and a
worker's report is as old as its last heartbeat. So each is looked at twice: a worker has no token
to come if it waits, in the same session, before and after its queue was found empty.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class NewSession:
    """A session whose worker waits for the first token.

    Attributes:
        life: The worker's incarnation.
        number: The number of the session.
        heard: Time of the report, by any clock.
    """

    life: str
    number: int
    heard: float

    @property
    def key(self) -> tuple[str, int]:
        """Names the session."""
        return self.life, self.number


class LostTokens:
    """The workers whose queue was found empty, and those that got another token."""

    def __init__(self) -> None:
        self._seen_empty: dict[int, NewSession] = {}
        self._supplied: dict[int, tuple[str, int]] = {}

    def is_any_new(self, waiting: Mapping[int, NewSession]) -> bool:
        """Returns whether to look at the queues: a waiting worker has not been supplied."""
        for index in [i for i in self._seen_empty if i not in waiting]:
            del self._seen_empty[index]
        return any(
            self._supplied.get(index) != each.key
            and self._seen_empty.get(index) != each  # Nothing new was said since.
            for index, each in waiting.items()
        )

    def find(self, waiting: Mapping[int, NewSession], empty: Collection[int]) -> list[int]:
        """Returns the workers that need a token; each is named once in a session.

        Args:
            waiting: The waiting workers, by index.
            empty: Those of them whose queue has no token now.
        """
        lacking = []
        for index, each in waiting.items():
            before = self._seen_empty.get(index)
            if index not in empty:
                self._seen_empty.pop(index, None)
            elif before is None or before.key != each.key:
                self._seen_empty[index] = each
            elif each.heard > before.heard and self._supplied.get(index) != each.key:
                self._supplied[index] = each.key
                lacking.append(index)
        return lacking
