"""The progress bar, and the lines that replace it without a terminal."""

import io

import pytest
from rich.console import Console

from paramserve.jobs.hints import describe_running_job
from paramserve.jobs.progress import (
    LINE_SECS,
    START_SECS,
    ProgressDisplay,
    describe_pace,
    describe_step,
)
from paramserve.protos import status_pb2 as pb


def status(**fields):
    return pb.JobStatus(
        **{
            "phase": "training",
            "global_step": 1500,
            "max_steps": 2000,
            "steps_per_second": 61.25,
            "examples_per_second": 15680,
            "loss": 0.31234,
            **fields,
        }
    )


def show(*statuses, terminal=False, width=80):
    """Returns the printed text, without the hints at the beginning."""
    output = io.StringIO()
    console = Console(file=output, force_terminal=terminal, width=width, color_system=None)
    with ProgressDisplay(console) as display:
        for each in statuses:
            display.show(each)
    return output.getvalue()


def lines_of(*statuses, **options):
    """Returns the lines of a pipe after the hints."""
    return show(*statuses, **options).splitlines()[len(describe_running_job("")) :]


def test_the_figures_of_a_job_in_training():
    tasks = [
        pb.TaskStatus(role=role, state=state)
        for role, state in [("ps", "up"), ("worker", "up"), ("worker", "up"), ("worker", "lost")]
    ]
    assert describe_step(status()) == "step 1,500/2,000"
    assert describe_pace(status(tasks=tasks)) == (
        "61.2 steps/s  15,680 examples/s  loss 0.3123  workers 2"
    )


def test_the_figures_before_there_are_any():
    waiting = pb.JobStatus(phase="waiting", detail="ps:0", uptime_secs=START_SECS)
    assert (describe_step(waiting), describe_pace(waiting)) == ("", waiting.detail)
    assert "loss -" in describe_pace(pb.JobStatus(phase="training"))
    assert describe_step(pb.JobStatus(phase="training", global_step=7)) == "step 7"


def test_there_is_no_speed_where_no_steps_are_made():
    """After the end the summary has the one that counts."""
    assert describe_pace(status(phase="stopping")) == ""
    missing = "waiting for ps:0 (lost)"
    assert describe_pace(status(phase="recovering", detail=missing)) == missing


def test_without_a_terminal_a_line_is_printed_now_and_then():
    lines = lines_of(
        status(phase="waiting", uptime_secs=0.1, detail="no worker", global_step=0),
        status(uptime_secs=1.0, global_step=10),
        status(uptime_secs=1.0 + LINE_SECS / 2, global_step=20),
        status(uptime_secs=1.1 + LINE_SECS, global_step=30),
        status(uptime_secs=1.2 + LINE_SECS, phase="stopping", global_step=31),
    )
    assert [line.split()[0] for line in lines] == ["waiting", "training", "training", "stopping"]
    assert ["step 10/" in lines[1], "step 30/" in lines[2]] == [True, True]


def test_a_terminal_gets_a_bar_and_the_figures_below_it_neither_of_them_cut():
    large = status(global_step=1_234_567, max_steps=9_876_543, examples_per_second=1_234_567)
    screen = show(large, terminal=True).splitlines()
    [bar] = {line for line in screen if describe_step(large) in line}
    [words] = {line for line in screen if describe_pace(large) in line}
    assert "training" in bar
    assert max(map(len, screen)) <= 80 + len("\x1b[?25l\x1b[2K")
    assert "…" not in bar + words


def test_a_line_without_a_terminal_is_not_wrapped_whatever_its_length():
    detail = "waiting for " + ", ".join(f"ps:{i} (host-{i}.example.com:2222)" for i in range(9))
    assert lines_of(status(phase="recovering", detail=detail, global_step=0)) == [
        f"recovering   {detail}"
    ]


def test_at_first_a_job_says_what_it_starts_and_later_who_is_missing():
    starting = pb.JobStatus(phase="starting", detail="5 processes")
    assert show(starting) == "starting     5 processes\n"
    missing = "waiting for ps:0 (never heard of)"
    counts = {"wanted_ps": 1, "wanted_workers": 2}
    early = pb.JobStatus(phase="waiting", detail=missing, tasks=[pb.TaskStatus(state="up")])
    early.MergeFrom(pb.JobStatus(**counts))
    assert lines_of(early) == ["waiting      1 of 3 tasks up"]
    early.uptime_secs = START_SECS
    assert lines_of(early) == [f"waiting      {missing}"]


def test_what_can_be_done_while_a_job_runs_is_said_when_it_begins():
    lines = show(status(logdir="runs/a b"), status(logdir="runs/a b")).splitlines()
    hints = describe_running_job("runs/a b")
    assert lines[: len(hints)] == hints, "once"
    assert not set(lines[len(hints) :]) & set(hints)
    for part in ("paramserve status --logdir 'runs/a b'", "tensorboard --logdir", "Ctrl-C"):
        assert any(part in line for line in hints)


@pytest.mark.parametrize("terminal", [False, True])
def test_brackets_in_a_message_are_no_markup(terminal):
    detail = "no device [/job:ps/task:0] for [[{{node w}}]] [red]"
    assert detail in show(status(detail=detail, global_step=0), terminal=terminal, width=200)


def test_a_job_without_a_last_step_says_that_it_trains_until_the_input_ends():
    endless = status(max_steps=0)
    lines = lines_of(endless, endless)
    assert lines[0] == "no --max-steps: it trains until the input ends"
    assert len([line for line in lines if "--max-steps" in line]) == 1
    assert "--max-steps" not in "".join(lines_of(status()))
