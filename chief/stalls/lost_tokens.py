"""Sync mode: finds the workers that wait for a token which was never issued.

A worker whose session broke in the middle of a step has lost its token; one whose session broke
while it waited for the next has not. Both then wait for the first token of a new session, and a
worker's report is as old as its last heartbeat. So each is looked at twice: a worker has no token
to come if it waits, in the same session, before and after its queue was found empty.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
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
        """The session's name."""
        return self.life, self.number


class LostTokens:
    """The workers whose queue was found empty, and those that got another token."""

    def __init__(self) -> None:
        self._seen_empty: dict[int, NewSession] = {}
        self._supplied: dict[int, tuple[str, int]] = {}

    def find(
        self, waiting: Mapping[int, NewSession], look: Callable[[], Collection[int]]
    ) -> list[int]:
        """Returns the workers that need a token; each is named once in a session.

        Args:
            waiting: The waiting workers, by index.
            look: Finds the workers whose queue has no token now; called if it may matter.
        """
        for index in self._seen_empty.keys() - waiting.keys():
            del self._seen_empty[index]
        if all(
            self._supplied.get(index) == each.key or self._seen_empty.get(index) == each
            for index, each in waiting.items()
        ):
            return []  # Nothing new was said, so there is no need to ask the parameter server.
        empty, lacking = look(), []
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
