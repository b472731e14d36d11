"""The token of a job, and the tokens derived from it."""

import itertools
import re
import stat

import pytest

from paramserve.cluster.token import (
    TOKEN_VARIABLE,
    Right,
    Token,
    allows,
    find_token,
    remove_tokens,
    write_tokens,
)
from paramserve.errors import UsageError


@pytest.fixture
def secret():
    return Token.new()


@pytest.fixture
def tokens(secret, tmp_path):
    """A token of each kind, in the form of its file."""
    place = write_tokens(tmp_path, secret)
    return {name: Token.read(place / name) for name in ("job", *Right)}


def test_the_secret_of_a_job_recognizes_all_of_its_tokens(secret, tokens):
    assert {right: secret.right_of(tokens[right].text) for right in Right} == {r: r for r in Right}
    assert all(secret.for_right(right) == tokens[right].text for right in Right)
    # It is never sent itself.
    assert secret.right_of(secret.text) is None


def test_no_token_of_another_job_is_recognized(secret, tokens):
    other = Token.new()
    assert {other.right_of(tokens[right].text) for right in Right} == {None}
    for text in ("", "read-", tokens[Right.READ].text[:-1], "é" * 64):
        assert secret.right_of(text) is None


def test_a_task_recognizes_readers_and_sends_its_own(secret, tokens):
    member = secret.as_member()
    assert member == tokens[Right.MEMBER]
    assert member.right_of(secret.for_right(Right.READ)) is Right.READ
    assert member.for_right(Right.READ) == secret.for_right(Right.READ)
    with pytest.raises(UsageError, match=r"one to member, and stopping.* its control token, by"):
        member.for_right(Right.CONTROL)


def test_who_controls_a_job_reads_it(tokens):
    control = tokens[Right.CONTROL]
    assert control.for_right(Right.READ) == control.text
    with pytest.raises(UsageError, match="taking part in a job needs another"):
        control.for_right(Right.MEMBER)
    for right in (Right.CONTROL, Right.MEMBER):
        with pytest.raises(UsageError, match=f"one to read, and .* its {right} token"):
            tokens[Right.READ].for_right(right)


def test_every_right_includes_reading_and_no_other():
    allowed = {(held, needed) for held, needed in itertools.product(Right, Right)
               if allows(held, needed)}  # fmt: skip
    assert allowed == {(r, r) for r in Right} | {(r, Right.READ) for r in Right}


def test_a_token_is_shown_nowhere(secret, tokens):
    for token in (secret, *tokens.values()):
        assert token.text not in repr(token)
        assert token.text not in f"{token}"


def test_files_are_for_their_owner_alone_and_go_again(secret, tmp_path):
    place = write_tokens(tmp_path, secret)
    write_tokens(tmp_path, Token.new())  # Those of another run stood here.
    assert stat.S_IMODE(place.stat().st_mode) == 0o700
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in place.iterdir()}
    assert modes == dict.fromkeys(("job", *Right), 0o600)
    assert Token.read(place / "job") != secret
    remove_tokens(place)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["", "hunter2", "f" * 63, "write-" + "0" * 64, "F" * 64])
def test_what_is_no_token_is_refused_and_not_shown(tmp_path, text):
    path = tmp_path / "token"
    path.touch(mode=0o600)
    path.write_text(text)
    with pytest.raises(
        UsageError, match=r"has no token: expected 64 .*openssl rand -hex 32"
    ) as info:
        Token.read(path)
    assert not text or text not in str(info.value)


def test_a_file_that_everyone_reads_is_refused(tmp_path, secret):
    path = tmp_path / "token"
    path.write_text(secret.text)
    path.chmod(0o644)
    with pytest.raises(UsageError, match=r"can be read by everyone \(mode 0644\): `chmod 600` it"):
        Token.read(path)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(UsageError, match=re.escape(f"{str(tmp_path / 'no')!r} cannot be read")):
        Token.read(tmp_path / "no")


def test_a_token_comes_from_its_file_the_log_directory_or_the_environment(tmp_path, monkeypatch):
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    file, logdir, variable = Token.new(), Token.new(), Token.new()
    write_tokens(tmp_path, logdir)
    given = write_tokens(tmp_path / "given", file) / "job"
    assert find_token(None) is None
    monkeypatch.setenv(TOKEN_VARIABLE, variable.text)
    assert find_token(None) == variable
    assert find_token(None, str(tmp_path / "without")) == variable
    assert find_token(None, "gs://bucket/job") == variable
    assert find_token(None, str(tmp_path)) == logdir
    assert find_token(str(given), str(tmp_path)) == file
    monkeypatch.setenv(TOKEN_VARIABLE, "hunter2")
    with pytest.raises(UsageError, match=f"variable {TOKEN_VARIABLE} has no token"):
        find_token(None)
