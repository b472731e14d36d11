"""Mistakes on the command line: one line each, exit code 2, and nothing started."""

import json

import pytest

from paramserve.cli import place
from paramserve.cluster.spec import Role
from paramserve.cluster.status_client import refuse_live_job
from paramserve.errors import UsageError
from support.ports import free_port

CLUSTER = {
    "chief": ["10.0.0.1:7077"],
    "ps": ["10.0.0.2:2222"],
    "worker": ["10.0.0.3:2222", "10.0.0.4:2222"],
}


def tf_config(role, index=0, **cluster):
    config = {"cluster": {**CLUSTER, **cluster}, "task": {"type": role, "index": index}}
    return {"TF_CONFIG": json.dumps(config)}


@pytest.fixture
def model(tmp_path):
    file = tmp_path / "toy.py"
    file.write_text("def build(task): ...\n")
    return f"{file}:build"


def assert_mistake(result, message):
    lines = result.stderr.splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("error: ")
    assert message in lines[0]
    assert (result.exit_code if hasattr(result, "exit_code") else result.returncode) == 2
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--ps", "0"], "--ps 0: expected at least 1"),
        (["--workers", "0"], "--workers 0: expected at least 1"),
        (["--max-steps", "0"], "--max-steps 0: expected at least 1"),
        (["--max-wait-secs", "-1"], "--max-wait-secs -1: expected a positive number"),
        (["--save-checkpoint-secs", "-1"], "--save-checkpoint-secs -1: expected a positive"),
        (["--grace-secs", "0"], "--grace-secs 0: expected a positive number"),
        (["--max-restarts", "-1"], "--max-restarts -1: expected at least 0"),
        (["--restart-window-secs", "0"], "--restart-window-secs 0: expected a positive number"),
        (["--param", "rate"], "--param 'rate': expected KEY=VALUE"),
        (["--launcher", "slurm"], "--launcher 'slurm': expected ray or process"),
        (["--logdir", ""], "--logdir is empty"),
        (
            ["--logdir", "gs://"],
            "--logdir 'gs://' has only a scheme: expected gs://PLACE/DIRECTORY",
        ),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_a_job_with_an_impossible_option(invoke, model, options, message):
    assert_mistake(invoke("run", model, *options), message)


def test_a_job_with_a_model_that_is_not_there(invoke, tmp_path, model):
    missing = tmp_path / "missing.py"
    assert_mistake(invoke("run", f"{missing}:build"), f"model file '{missing}' does not exist")
    file = model.removesuffix(":build")
    assert_mistake(invoke("run", f"{file}:train"), "has no 'train'; it defines: build")
    assert_mistake(invoke("run", "no_such_module:build"), "module 'no_such_module' was not found")
    assert_mistake(invoke("run", "build"), "expected MODULE:FUNCTION or FILE.py:FUNCTION")


def test_a_job_with_a_log_directory_that_cannot_be_made(invoke, model, tmp_path):
    (tmp_path / "file").write_text("")
    logdir = tmp_path / "file" / "runs"
    result = invoke("run", model, "--logdir", logdir, "--launcher", "process")
    assert_mistake(result, f"--logdir '{logdir}' is not writable")


def test_a_second_job_in_a_live_log_directory(invoke, model, job, tmp_path):
    (tmp_path / "job.json").write_text(json.dumps({"address": job.address}))
    assert_mistake(
        invoke("run", model, "--logdir", tmp_path, "--launcher", "process"),
        f"a job already runs in --logdir '{tmp_path}' (chief at {job.address}): stop it with",
    )
    assert list((tmp_path / "logs").iterdir()) == []
    # The file of a chief that died does not stop the next job.
    (tmp_path / "job.json").write_text(json.dumps({"address": f"127.0.0.1:{free_port()}"}))
    refuse_live_job(str(tmp_path))


def test_with_debug_the_traceback_comes_first(invoke):
    result = invoke("run", "missing.py:build", "--debug")
    assert result.exit_code == 2
    assert "Traceback" in result.stderr
    assert "split_reference" in result.stderr
    assert result.stderr.splitlines()[-1].startswith("error: model file 'missing.py' does not")


# Roles, from flags


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ps"], "where is the chief? Give --chief HOST:PORT, or set TF_CONFIG"),
        (["worker", "m.py:build"], "where is the chief? Give --chief HOST:PORT, or set TF_CONFIG"),
        (["ps", "--chief", "10.0.0.1"], "--chief '10.0.0.1' has no port"),
        (["ps", "--chief", "10.0.0.1:99999"], "port '99999'"),
        (["ps", "--chief", "a:1", "--port", "65536"], "--port 65536: expected 0 to 65535"),
        (["worker", "m.py:build", "--chief", "a:1", "--port", "-1"], "--port -1: expected 0 to"),
        (["worker", "m.py:build", "--chief", "a:1", "--param", "x"], "--param 'x': expected KEY="),
        (["chief", "m.py:build", "--workers", "0"], "--workers 0: expected at least 1"),
        (["chief", "m.py:build", "--port", "70000"], "--port 70000: expected 0 to 65535"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_role_with_an_impossible_option(run, arguments, message):
    assert_mistake(run(*arguments), message)


def test_a_role_with_debug_shows_the_traceback_first(run):
    result = run("ps", "--debug")
    assert result.returncode == 2
    assert "Traceback" in result.stderr
    assert result.stderr.splitlines()[-1].startswith("error: where is the chief?")


# Roles, from TF_CONFIG


@pytest.mark.parametrize(
    ("env", "message"),
    [
        ({"TF_CONFIG": "{cluster"}, "is no JSON"),
        ({"TF_CONFIG": "[]"}, "is no JSON object"),
        ({"TF_CONFIG": '{"cluster": {}}'}, "the cluster has no chief"),
        (tf_config("worker"), "says this is worker:0, but the command is `paramserve ps`: run"),
        (tf_config("ps", 5), "ps:5 is not in the cluster, which lists 1 task(s) of role ps"),
        (tf_config("ps", ps=["10.0.0.2"]), "ps:0 address '10.0.0.2' has no port"),
    ],
    ids=["no JSON", "no object", "no chief", "another role", "no such task", "bad address"],
)
def test_a_role_with_a_wrong_tf_config(run, env, message):
    assert_mistake(run("ps", env=env), message)


def test_a_role_without_a_chief_gives_up_in_time(run):
    """With TF_CONFIG's addresses where no flag says otherwise."""
    chief, own = (f"127.0.0.1:{free_port()}" for _ in range(2))
    env = tf_config("ps", chief=[chief], ps=[own])
    result = run("ps", "--max-wait-secs", "0.5", env=env)
    assert result.returncode == 3
    last = result.stderr.splitlines()[-1]
    assert last.startswith(f"error: max_wait_secs=0.5 ran out: the chief at {chief} did not take")
    assert "Traceback" not in result.stderr


def test_a_host_that_does_not_resolve_is_named_by_the_process(monkeypatch):
    monkeypatch.setattr(place, "RESOLVE_SECS", 0.0)
    with pytest.raises(UsageError, match=r"--host 'no-such-host\.invalid' does not resolve here"):
        place.find_place(Role.PS, {"host": "no-such-host.invalid"})
