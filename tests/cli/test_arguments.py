"""The parsing of arguments, and the ends of commands."""

import pytest
import typer

from paramserve.cli.arguments import ending_with_exit_code
from paramserve.cli.options import parse_params, read_values
from paramserve.errors import ExitCode, JobFailed, UsageError, WaitTimeout
from paramserve.jobs.options import JobOptions


def test_parameters_are_split_at_their_first_equals_sign():
    assert parse_params(["rate=0.1", "path=a=b", "empty="]) == {
        "rate": "0.1",
        "path": "a=b",
        "empty": "",
    }
    assert parse_params(["rate=1", "rate=2"]) == {"rate": "2"}
    assert parse_params(None) == {}


@pytest.mark.parametrize("param", ["rate", "=0.1", ""])
def test_a_parameter_needs_name_and_value(param):
    with pytest.raises(UsageError, match=r"--param .*: expected KEY=VALUE"):
        parse_params(["good=1", param])


def test_zero_seconds_between_checkpoints_mean_none():
    def read(**values):
        return read_values(JobOptions, values=values)

    assert read(save_checkpoint_secs=0.0) == {"save_checkpoint_secs": None}
    options = read(save_checkpoint_secs=5.0, params=["a=1"], replicas_to_aggregate="3")
    assert options == {
        "save_checkpoint_secs": 5.0,
        "params": {"a": "1"},
        "replicas_to_aggregate": 3,
    }


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (JobFailed("worker:0 failed"), ExitCode.FAILED),
        (UsageError("--ps 0"), ExitCode.USAGE),
        (WaitTimeout("max_wait_secs=5 ran out"), ExitCode.TIMED_OUT),
    ],
)
@pytest.mark.parametrize("debug", [False, True])
def test_a_failure_is_one_line_and_an_exit_code(capsys, error, code, debug):
    with pytest.raises(typer.Exit) as end, ending_with_exit_code(debug):
        raise error
    assert end.value.exit_code == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines()[-1] == f"error: {error}"
    assert ("Traceback" in err) is debug
    assert (len(err.splitlines()) == 1) is not debug


def test_an_interruption_has_a_code_of_its_own(capsys):
    with pytest.raises(typer.Exit) as end, ending_with_exit_code(debug=False):
        raise KeyboardInterrupt
    assert end.value.exit_code == 130
    assert "Traceback" not in capsys.readouterr().err


def test_a_bug_is_not_hidden():
    with pytest.raises(KeyError), ending_with_exit_code(debug=False):
        raise KeyError("a bug")
