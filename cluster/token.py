"""The token of a job, with the rights to read, control, or join it."""

from __future__ import annotations

import enum
import hashlib
import hmac
import os
import re
import secrets
import stat
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from ..errors import UsageError
from ..option import PREFIX

TOKEN_VARIABLE = f"{PREFIX}TOKEN"
# A folder of the log directory, with a file of each kind of token.
TOKENS_FOLDER = "tokens"
JOB_TOKEN = "job"
_FORM = re.compile(r"(?:(read|control|member)-)?([0-9a-f]{64})")


class Right(enum.StrEnum):
    """A right to call a job's services."""

    READ = "read"
    """To see status and metrics."""
    CONTROL = "control"
    """To stop, scale and save a job, and to read."""
    MEMBER = "member"
    """To take part as a task, and to read."""


@dataclass(frozen=True)
class Token:
    """The secret of a job, or a token with one of its rights.

    A token with a right is derived from the secret by HMAC-SHA256. So a process with the secret
    recognizes all of them, and none leads back to it. The right to read is derived from that of a
    member, so that a task recognizes callers that may read its metrics.

    Attributes:
        text: The token itself; it is shown nowhere.
        right: Its right; None: all of them, as the secret of the job.
    """

    text: str = field(repr=False)
    right: Right | None = None

    @classmethod
    def new(cls) -> Token:
        """Returns the secret of a new job."""
        return cls(secrets.token_hex(32))

    @classmethod
    def parse(cls, text: str, source: str) -> Token:
        """Parses a token.

        Args:
            text: 64 hexadecimal digits; before those of a token with a right, "read-", "control-"
                or "member-".
            source: The source of the text, for the error, which does not show the text.

        Raises:
            UsageError: It has another form.
        """
        match = _FORM.fullmatch(text.strip())
        if match is None:
            raise UsageError(
                f"{source} has no token: expected 64 hexadecimal digits, as `openssl rand -hex 32` "
                "prints them, or a token that begins with read-, control- or member-"
            )
        return cls(match[0], Right(match[1]) if match[1] else None)

    @classmethod
    def read(cls, path: str | Path) -> Token:
        """Reads a token from a file.

        Raises:
            UsageError: The file cannot be read, others can read it, or it has no token.
        """
        try:
            mode = os.stat(path).st_mode
            text = Path(path).read_text()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is no text"
            raise UsageError(f"the token file {str(path)!r} cannot be read: {reason}") from error
        if mode & stat.S_IROTH:
            raise UsageError(
                f"the token file {str(path)!r} can be read by everyone (mode "
                f"{stat.S_IMODE(mode):04o}): `chmod 600` it"
            )
        return cls.parse(text, f"the token file {str(path)!r}")

    def for_right(self, right: Right) -> str:
        """Returns the text that a caller sends for a call that needs a right.

        Raises:
            UsageError: This token does not have the right.
        """
        if (text := self.by_right.get(right)) is not None:
            return text
        if right is Right.READ and self.right is Right.CONTROL:
            return self.text
        raise UsageError(
            f"the token is one to {self.right}, and {describe(right)} needs another: give the "
            f"token of the job, or its {right} token, by --token-file or {TOKEN_VARIABLE}"
        )

    def for_first(self, rights: Sequence[Right]) -> str:
        """Returns the text of the first of some rights that this token has.

        Raises:
            UsageError: It has none of them.
        """
        *others, last = rights
        for right in others:
            with suppress(UsageError):
                return self.for_right(right)
        return self.for_right(last)

    def right_of(self, text: str) -> Right | None:
        """Returns the right of a text that a caller sent; None: it is no token of this job."""
        sent = text.encode(errors="replace")
        matches = [
            right for right, own in self.by_right.items() if hmac.compare_digest(own.encode(), sent)
        ]
        return matches[0] if matches else None

    def as_member(self) -> Token:
        """Returns the token that a task needs: it can join and read, and not control.

        Raises:
            UsageError: This token does not have the right.
        """
        return Token(self.for_right(Right.MEMBER), Right.MEMBER)

    @cached_property
    def by_right(self) -> Mapping[Right, str]:
        """The tokens that follow from this one, itself among them."""
        if self.right in (Right.READ, Right.CONTROL):
            return {self.right: self.text}
        member = _derive(self.text, Right.MEMBER) if self.right is None else self.text
        known = {Right.MEMBER: member, Right.READ: _derive(member, Right.READ)}
        if self.right is None:
            known[Right.CONTROL] = _derive(self.text, Right.CONTROL)
        return known


def allows(held: Right, needed: Right) -> bool:
    """Returns whether a token with one right is enough for a call that needs another."""
    return held is needed or needed is Right.READ


def describe(right: Right) -> str:
    """Describes the use of a right, for an error."""
    return {
        Right.READ: "reading the status or metrics of a job",
        Right.CONTROL: "stopping, scaling or saving a job",
        Right.MEMBER: "taking part in a job",
    }[right]


def find_token(token_file: str | None, logdir: str | None = None) -> Token | None:
    """Returns the token given to this process; None: it has none.

    Args:
        token_file: Path from `--token-file`; it comes first.
        logdir: Log directory of the job, which may have the token; it comes before the environment.

    Raises:
        UsageError: The given text is no token.
    """
    if token_file:
        return Token.read(token_file)
    if logdir is not None and "://" not in logdir:
        path = Path(logdir, TOKENS_FOLDER, JOB_TOKEN)
        if path.exists() and os.access(path, os.R_OK):
            return Token.read(path)
    text = os.environ.get(TOKEN_VARIABLE)
    return Token.parse(text, f"the environment variable {TOKEN_VARIABLE}") if text else None


def write_tokens(folder: Path, token: Token) -> Path:
    """Writes the secret of a job, and a token with each right, readable by their owner alone.

    Args:
        folder: Gets a folder "tokens", with files "job", "read", "control" and "member".
        token: The secret; of a token with a right, only the tokens derived from it are written.

    Returns:
        The folder of the files.
    """
    place = folder / TOKENS_FOLDER
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    texts = {str(right): text for right, text in token.by_right.items()}
    if token.right is None:
        texts[JOB_TOKEN] = token.text
    for name, text in texts.items():
        # Made with mode 0600, and never there by half.
        descriptor, temporary = tempfile.mkstemp(dir=place)
        with os.fdopen(descriptor, "w") as file:
            file.write(f"{text}\n")
        os.replace(temporary, place / name)
    return place


def remove_tokens(place: Path) -> None:
    """Removes the files of `write_tokens`."""
    for name in (JOB_TOKEN, *Right):
        (place / name).unlink(missing_ok=True)
    place.rmdir()


def _derive(text: str, right: Right) -> str:
    digest = hmac.new(text.encode(), f"paramserve {right}".encode(), hashlib.sha256)
    return f"{right}-{digest.hexdigest()}"
