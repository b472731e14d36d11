"""The sources of options: a flag, then the environment, then a file, then the default."""

import pytest

from paramserve.cli.options import read_values
from paramserve.data_plane.options import DataPlane
from paramserve.jobs.launch_options import LaunchOptions
from paramserve.jobs.options import JobOptions
from paramserve.option import Option, all_definitions

from .test_mistakes import assert_mistake


@pytest.fixture
def model(tmp_path):
    file = tmp_path / "toy.py"
    file.write_text("def build(task): ...\n")
    return f"{file}:build"


@pytest.fixture
def config(tmp_path):
    """Writes a configuration file; gives its path."""

    def write(content):
        path = tmp_path / "job.toml"
        path.write_text(content)
        return str(path)

    return write


@pytest.fixture
def plan(invoke, model):
    """Value and origin of each option in a dry run, by name."""

    def plan(*arguments):
        result = invoke("run", model, "--dry-run", *arguments)
        assert result.exit_code == 0, result.output
        rows = (line.split(maxsplit=2) for line in result.stdout.splitlines()[3:])
        return {name: (value, origin.strip()) for name, value, origin in rows}

    return plan


def test_a_flag_is_before_the_environment_before_the_file_before_the_default(
    plan, config, monkeypatch
):
    monkeypatch.setenv("PARAMSERVE_WORKERS", "5")
    monkeypatch.setenv("PARAMSERVE_MAX_STEPS", "50")
    monkeypatch.setenv("PARAMSERVE_SYNC", "false")
    path = config("workers = 4\nmax-steps = 40\nps = 4\nlogdir = 'runs/file'\n")
    found = plan("--workers", "6", "--config", path)
    assert found["workers"] == ("6", "command line")
    assert found["max-steps"] == ("50", "PARAMSERVE_MAX_STEPS")
    assert found["sync"] == ("false", "PARAMSERVE_SYNC")
    assert found["ps"] == ("4", path)
    assert found["logdir"] == ("runs/file", path)
    assert found["spares"] == ("0", "default")


def test_every_option_of_a_job_can_come_from_the_environment(plan, monkeypatch):
    monkeypatch.setenv("PARAMSERVE_CONFIG", "")
    values = {
        "PARAM": "rate=0.1 path=x",
        "REPLICAS_TO_AGGREGATE": "all",
        "SAVE_CHECKPOINT_SECS": "0",
        "STORAGE": "flat",
        "GPUS_PER_WORKER": "0.5",
        "EVAL": "0",
    }
    for name, value in values.items():
        monkeypatch.setenv(f"PARAMSERVE_{name}", value)
    found = plan()
    shown = ("rate=0.1", "all", "-", "flat", "0.5", "false")
    names = [name.lower().replace("_", "-") for name in values]
    assert tuple(found[name][0] for name in names) == shown
    known = {each.key for each in all_definitions(JobOptions, LaunchOptions)}
    assert set(found) == known


def test_a_file_has_names_of_flags_or_keywords_and_a_table_of_parameters(plan, config):
    path = config(
        "num_workers = 3\nwire_dtype = 'bfloat16'\nmirror-secs = 2.5\nsync = true\n"
        "[param]\nrate = 0.1\n"
    )
    found = plan("--config", path)
    assert found["workers"] == ("3", path)
    assert found["wire-dtype"] == ("bfloat16", path)
    assert found["mirror-secs"] == ("2.5", path)
    assert found["param"] == ("rate=0.1", path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("worker = 3", "has no option 'worker': did you mean 'workers'?"),
        ("wire_type = 'x'", "has no option 'wire_type': did you mean 'wire-dtype'?"),
        ("workers = 'many'", "workers: "),
        ("workers = 2.5", "workers: "),
        ("workers = true", "workers: "),
        ("workers = [2]", "workers: expected one value"),
        ("workers = 2\nnum_workers = 3", "gives 'num_workers' twice"),
        ("workers = 1979-05-27", "expected a string, number or switch"),
        ("param = 'rate'", "param: expected a table or list of KEY=VALUE"),
        ("param = ['rate']", "--param 'rate': expected KEY=VALUE"),
        ("workers =", "is no TOML"),
        ("workers = 0", "--workers 0: expected at least 1"),
    ],
)
def test_a_mistake_in_a_file_is_named(invoke, model, config, content, message):
    assert_mistake(invoke("run", model, "--dry-run", "--config", config(content)), message)


def test_a_file_that_is_not_there(invoke, model):
    result = invoke("run", model, "--dry-run", "--config", "no.toml")
    assert_mistake(result, "--config 'no.toml' cannot be read: No such file or directory")


def test_a_mistake_in_the_environment_names_the_variable(invoke, model, monkeypatch):
    monkeypatch.setenv("PARAMSERVE_WORKERS", "many")
    assert_mistake(invoke("run", model, "--dry-run"), "PARAMSERVE_WORKERS=many: ")


def test_what_kubernetes_says_of_services_is_no_option(plan, monkeypatch):
    """It has `NAME_PORT` in the environment for a Service `paramserve`, or `paramserve-metrics`."""
    monkeypatch.setenv("PARAMSERVE_PORT", "tcp://10.0.0.1:7077")
    monkeypatch.setenv("PARAMSERVE_METRICS_PORT", "tcp://10.0.0.2:9090")
    found = plan()
    assert found["port"] == ("0", "default")
    assert found["metrics-port"] == ("0", "default")
    monkeypatch.setenv("PARAMSERVE_PORT", "7078")
    assert plan()["port"] == ("7078", "PARAMSERVE_PORT")


def test_a_role_takes_its_options_from_the_environment_and_not_from_services(run):
    env = {"PARAMSERVE_PORT": "tcp://10.0.0.1:7077", "PARAMSERVE_CHIEF": "10.0.0.1"}
    assert_mistake(run("ps", env=env), "--chief '10.0.0.1' has no port")


def test_flags_beside_the_options_of_a_launcher_are_refused(run, model):
    result = run("chief", model, "--options", '{"logdir": "x"}', "--workers", "2")
    assert_mistake(result, "--workers beside --options")


def test_a_dry_run_starts_nothing_and_says_what_would_start(invoke, model, tmp_path):
    logdir = tmp_path / "runs"
    options = ("--ps", "2", "--spares", "1", "--logdir", logdir)
    result = invoke("run", model, "--dry-run", *options)
    assert result.exit_code == 0
    assert "would start: 1 chief, 2 ps, 1 spare, 2 worker" in result.stdout
    assert not logdir.exists()
    assert_mistake(invoke("run", model, "--dry-run", "--ps", "0"), "--ps 0: expected at least 1")


def test_the_command_line_has_the_defaults_of_the_fields(plan):
    found = plan()
    others = {"workers", "logdir"}
    for each in all_definitions(DataPlane, LaunchOptions):
        if each.key not in others and isinstance(each.default, str):
            assert found[each.key] == (each.default, "default")
    assert found["workers"] == ("2", "default")


def test_values_of_a_command_are_those_of_the_fields():
    assert read_values(JobOptions, values={"mirror_secs": 0.0}) == {"mirror_secs": None}


def test_an_option_without_help_is_none():
    with pytest.raises(ValueError, match="an option has a help"):
        Option(help="")


def test_a_shell_can_complete_names_of_options(invoke):
    assert "--show-completion" in invoke("--help").stdout
