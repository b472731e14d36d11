"""The output of `paramserve status` in a terminal of 80 columns, a narrow one, and a pipe."""

import pytest

from paramserve.cli.status_view import show_status
from paramserve.protos import status_pb2 as pb

ADDRESSES = ["[2001:db8:1234:5678:9abc:def0:1234:5678]:65535", "worker-0.workers.default.svc:2222"]


@pytest.fixture
def show(monkeypatch, capsys):
    """Shows a job of long names, in a terminal of so many columns, or in a pipe."""

    def show_in(columns):
        if columns is not None:
            monkeypatch.setenv("TTY_COMPATIBLE", "1")
            monkeypatch.setenv("COLUMNS", str(columns))
        monkeypatch.setenv("NO_COLOR", "1")
        monkeypatch.setenv("TERM", "xterm")
        status = pb.JobStatus(phase="training", global_step=1_234_567, max_steps=9_876_543)
        status.tasks.add(role="ps", index=123, state="up", address=ADDRESSES[0], variables=7)
        status.tasks.add(
            role="worker",
            index=1234,
            state="end of input",
            address=ADDRESSES[1],
            local_steps=1_234_567,
            examples=123_456_789,
            loss=0.123456,
            error="its process is gone\nand more",
        )
        show_status(status)
        return capsys.readouterr().out

    return show_in


def plain(text):
    """Without the codes of a terminal."""
    return text.replace("\x1b[1m", "").replace("\x1b[0m", "")


@pytest.mark.parametrize("columns", [200, 80, 40])
def test_a_terminal_never_cuts_a_name_or_an_address(show, columns):
    text = plain(show(columns))
    assert "…" not in text
    for whole in (*ADDRESSES, "ps:123", "worker:1234", "end of input"):
        assert whole in text


def test_a_terminal_of_80_columns_wraps_what_a_task_does_below_itself(show):
    lines = plain(show(80)).splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith("worker:1234"))
    work = lines[first].split("  -  ")[1].strip()
    assert work.startswith("1,234,567 steps")
    assert lines[first + 1].startswith(" " * 20)


def test_a_pipe_gets_one_line_for_each_task(show):
    lines = show(None).splitlines()
    [worker] = [line for line in lines if "worker:1234" in line]
    assert "1,234,567 steps, 123,456,789 examples, loss 0.12346; its process is gone" in worker
    assert sum("ps:123" in line for line in lines) == 2, "its address, and its parameters"


def test_of_thousands_of_tasks_totals_are_shown(capsys):
    status = pb.JobStatus(phase="training", num_tasks=10_001)
    status.totals.add(role="worker", state="up", count=10_000)
    status.totals.add(role="worker", state="lost", count=1)
    status.tasks.add(role="worker", index=7, state="lost")
    show_status(status)
    text = capsys.readouterr().out
    assert "10,000 worker up, 1 worker lost; here those that are lost" in text
    assert "worker:7" in text
