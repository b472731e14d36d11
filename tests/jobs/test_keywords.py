"""Keyword arguments of `Job`: what is taken, and what is said of those that are not."""

from pathlib import Path

import numpy as np
import pytest

from paramserve import Job, UsageError

from .conftest import LINEAR


def mistake(**keywords):
    with pytest.raises(UsageError) as caught:
        Job(LINEAR, **{"logdir": "runs/x", **keywords})
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("num_worker", "num_workers"),
        ("workers", "num_workers"),
        ("ps", "num_ps"),
        ("steps", "max_steps"),
        ("log_dir", "logdir"),
        ("eval", "evaluate"),
        ("ray_adress", "ray_address"),
        ("max_restart", "max_restarts"),
    ],
)
def test_a_name_that_is_almost_right_is_told_the_right_one(name, meant):
    assert mistake(**{name: 1}) == f"Job has no argument {name!r}: did you mean {meant!r}?"


def test_a_name_like_no_other_is_told_all():
    message = mistake(qqqq=1)
    assert message.startswith("Job has no argument 'qqqq': it takes chief_trains, ")
    assert "launcher" in message


def test_a_name_of_the_data_plane_is_told_where_it_goes():
    assert mistake(wire_dtype="bfloat16") == (
        "'wire_dtype' is a field of DataPlane: data_plane=DataPlane(wire_dtype=...)"
    )


def test_without_a_log_directory_one_is_asked_for():
    with pytest.raises(
        UsageError, match=r"logdir is missing: .* Job\(model, logdir='runs/first'\)"
    ):
        Job(LINEAR)


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"num_workers": "2"}, "num_workers='2': expected an integer"),
        ({"num_workers": None}, "num_workers=None: expected an integer"),
        ({"max_steps": 10.5}, "max_steps=10.5: expected an integer"),
        ({"max_steps": True}, "max_steps=True: expected an integer"),
        ({"max_wait_secs": "60"}, "max_wait_secs='60': expected a number"),
        ({"sync": "yes"}, "sync='yes': expected True or False"),
        ({"recovery": 3}, "recovery=3: expected a string"),
        ({"replicas_to_aggregate": 1.5}, "replicas_to_aggregate=1.5: expected an integer or a str"),
        ({"data_plane": "flat"}, "data_plane='flat': expected DataPlane"),
        ({"params": ["rate"]}, "params=['rate']: expected Mapping[str, str]"),
        ({"max_restarts": "3"}, "max_restarts='3': expected an integer"),
        ({"gpus_per_worker": "1"}, "gpus_per_worker='1': expected a number"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_value_of_another_type_is_named(keywords, message):
    assert mistake(**keywords).startswith(message)


def test_values_as_programs_have_them_are_taken():
    job = Job(
        LINEAR,
        logdir=Path("runs/first"),
        max_steps=1e3,
        num_workers=np.int64(2),
        max_wait_secs=60,
        num_ps=None,
        stall_secs=None,
        params={"rate": 0.1},
    )
    options = job.options
    assert (options.logdir, options.max_steps, options.num_workers) == ("runs/first", 1000, 2)
    assert (options.num_ps, options.max_wait_secs) == (1, 60.0)
    assert isinstance(options.max_steps, int)


class NoLauncher:
    """Starts nothing."""

    def start(self, spec):
        raise UsageError("nothing is started")

    def close(self): ...


@pytest.mark.parametrize("terminal", [True, False])
def test_a_program_in_a_terminal_shows_progress_unless_it_does_so_itself(
    monkeypatch, capsys, tmp_path, terminal
):
    monkeypatch.setenv("TTY_COMPATIBLE", str(int(terminal)))
    job = Job(LINEAR, logdir=tmp_path, launcher=NoLauncher())

    for on_status in (None, print):
        with pytest.raises(UsageError, match="nothing is started"):
            job.run(on_status)
        is_shown = terminal and on_status is None
        assert ("starting" in capsys.readouterr().err) == is_shown
