"""The help of the command line."""

import subprocess
import sys

import pytest

import paramserve
from paramserve.data_plane.options import STORAGES, WIRE_DTYPES
from paramserve.jobs.options import RECOVERIES

JOB_OPTIONS = {
    "--ps",
    "--workers",
    "--sync",
    "--async",
    "--replicas-to-aggregate",
    "--max-steps",
    "--logdir",
    "--chief-trains",
    "--save-checkpoint-secs",
    "--save-checkpoint-steps",
    "--keep-checkpoints",
    "--save-summaries-steps",
    "--max-wait-secs",
    "--param",
    "--metrics-port",
    "--debug",
}
PLACE = {"--host", "--port", "--index", "--metrics-port", "--max-wait-secs", "--debug"}
COMMANDS = {
    "run": {*JOB_OPTIONS, "--launcher", "--ray-address"},
    "chief": {*JOB_OPTIONS, "--host", "--port"},
    "ps": {*PLACE, "--chief"},
    "worker": {*PLACE, "--chief", "--param"},
    "status": {"--chief", "--logdir", "--json", "--debug"},
    "stop": {"--chief", "--logdir", "--debug"},
    "checkpoint": {"--chief", "--logdir", "--debug"},
    "migrate": {"FILE...", "--write", "--keep-import", "--debug"},
}


def test_the_commands_are_listed_with_the_exit_codes(invoke):
    result = invoke("--help")
    assert result.exit_code == 0
    assert set(COMMANDS) <= set(result.stdout.split())
    words = " ".join(result.stdout.split())
    for meaning in ("0 done", "1 the job failed", "2 bad usage", "3 a wait ran out", "; 130 "):
        assert meaning in words


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_of_a_command_is_explained(invoke, command):
    result = invoke(command, "--help")
    assert result.exit_code == 0
    words = result.stdout.replace("/", " ").replace(",", " ").split()
    assert COMMANDS[command] <= set(words)
    assert ("MODEL" in words) is (command in ("run", "chief", "worker"))


@pytest.mark.parametrize("command", COMMANDS)
def test_no_name_of_an_option_is_cut_in_80_columns(invoke_narrow, command):
    result = invoke_narrow(command, "--help")
    assert result.exit_code == 0
    assert "…" not in result.stdout


def test_options_with_choices_show_them(invoke):
    words = invoke("run", "--help").stdout.split()
    for option, choices in (
        ("--launcher", "ray|process"),
        ("--recovery", "|".join(RECOVERIES)),
        ("--storage", "|".join(STORAGES)),
        ("--wire-dtype", "|".join(WIRE_DTYPES)),
        ("--replicas-to-aggregate", "N|all"),
    ):
        assert words[words.index(option) + 1] == choices


def test_paragraphs_are_filled(invoke_narrow):
    lines = [line.rstrip() for line in invoke_narrow("scale", "--help").stdout.splitlines()]
    begin = next(i for i, line in enumerate(lines) if "moves between" in line)
    paragraph = lines[begin : lines.index("", begin)]
    assert min(map(len, paragraph[:-1])) > 65


def test_without_a_command_there_is_help(invoke):
    result = invoke()
    assert result.exit_code in (0, 2)
    assert "checkpoint" in result.output


def test_the_version(invoke):
    result = invoke("--version")
    assert (result.exit_code, result.stdout) == (0, f"paramserve {paramserve.__version__}\n")


def test_a_typing_mistake_is_bad_usage(invoke):
    assert invoke("rum").exit_code == 2
    assert invoke("status", "--log-dir", "x").exit_code == 2
    assert invoke("run").exit_code == 2
    many = invoke("run", "m.py:build", "--workers", "many")
    assert many.exit_code == 2
    assert "--workers" in many.output


@pytest.mark.parametrize("slow", ["tensorflow", "libcst", "ray"])
def test_the_command_line_starts_without_what_is_slow_to_load(slow):
    program = f"import sys, paramserve.cli.app; sys.exit({slow!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], timeout=120).returncode == 0
