"""The progress bar, and the lines that replace it without a terminal."""

import io

import pytest
from rich.console import Console

from paramserve.cli.progress import LINE_SECS, ProgressDisplay, figures
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


def show(*statuses, terminal=False):
    output = io.StringIO()
    console = Console(file=output, force_terminal=terminal, width=200, color_system=None)
    with ProgressDisplay(console) as display:
        for each in statuses:
            display.show(each)
    return output.getvalue()


def test_the_figures_of_a_job_in_training():
    tasks = [
        pb.TaskStatus(role=role, state=state)
        for role, state in [("ps", "up"), ("worker", "up"), ("worker", "up"), ("worker", "lost")]
    ]
    assert figures(status(tasks=tasks)) == (
        "step 1,500/2,000  61.2 steps/s  15,680 examples/s  loss 0.3123  workers 2"
    )


def test_the_figures_before_there_are_any():
    waiting = pb.JobStatus(phase="waiting", detail="waiting for ps:0 (never heard of)")
    assert figures(waiting) == "waiting for ps:0 (never heard of)"
    assert "loss -" in figures(pb.JobStatus(phase="training"))
    assert "step 7  " in figures(pb.JobStatus(phase="training", global_step=7))


def test_without_a_terminal_a_line_is_printed_now_and_then():
    lines = show(
        status(phase="waiting", uptime_secs=0.1, detail="no worker", global_step=0),
        status(uptime_secs=1.0, global_step=10),
        status(uptime_secs=1.0 + LINE_SECS / 2, global_step=20),
        status(uptime_secs=1.1 + LINE_SECS, global_step=30),
        status(uptime_secs=1.2 + LINE_SECS, phase="stopping", global_step=31),
    ).splitlines()
    assert [line.split()[0] for line in lines] == ["waiting", "training", "training", "stopping"]
    assert ["step 10/" in lines[1], "step 30/" in lines[2]] == [True, True]


def test_a_terminal_gets_a_bar():
    output = show(status(), terminal=True)
    assert "training" in output
    assert "step 1,500/2,000" in output


@pytest.mark.parametrize("terminal", [False, True])
def test_brackets_in_a_message_are_no_markup(terminal):
    detail = "no device [/job:ps/task:0] for [[{{node w}}]] [red]"
    assert detail in show(status(detail=detail, global_step=0), terminal=terminal)
