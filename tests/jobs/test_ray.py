"""Jobs on Ray: on a cluster of the job's own, and on one with several nodes."""

import fcntl
import os
import signal
import subprocess
import sys
import tempfile
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
import pytest

from support.role_processes import handed_options

from .conftest import (
    LINEAR,
    MODELS,
    PATIENCE_SECS,
    find_chief_or_none,
    last_error,
    result_of,
    status_of,
    step_of,
    until,
)

RAY_NODES = Path(__file__).parent / "ray_nodes.py"


@pytest.fixture
def short_folder():
    """Ray's sockets lie below it, whose paths have to be short."""
    with tempfile.TemporaryDirectory(prefix="ps", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def test_an_embedded_ray_comes_and_goes_with_the_job(start, logdir, short_folder):
    """It also removes what an earlier one has left whose launcher was killed."""
    env = {"TMPDIR": str(short_folder)}
    killed = start("run", LINEAR, "--logdir", logdir / "killed", env=env)
    until(lambda: list(short_folder.glob("paramserve-tmp-chief-*")), "a chief that starts")
    killed.kill()
    left = list(short_folder.glob("paramserve-tmp-*"))
    assert {path.name.split("-")[2] for path in left} >= {"ray", "chief"}
    # Ray's processes outlive their driver a little, and own the folders meanwhile.
    until(lambda: not any(map(_has_owner, left)), "the end of the killed job")

    command = start(
        *("run", LINEAR, "--workers", 2, "--max-steps", 30, "--logdir", logdir), env=env
    )

    assert command.wait() == 0, command.output
    assert result_of(logdir)["examples"] == 30 * 2 * 20
    assert list(short_folder.iterdir()) == []
    assert not _raylets_below(short_folder)


def _has_owner(folder):
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _raylets_below(folder):
    raylets = (p for p in psutil.process_iter(["name", "cmdline"]) if p.info["name"] == "raylet")
    return [p for p in raylets if str(folder) in " ".join(p.info["cmdline"] or [])]


PROGRAM = """
import threading

import ray

from paramserve import Job, UsageError

ray.init(num_cpus=1, _temp_dir={folder!r}, include_dashboard=False, log_to_driver=False)


@ray.remote
class Notes:
    def __init__(self):
        self.steps = {{}}

    def add(self, name, step):
        self.steps[name] = step
        return self.steps


def run(name):
    result = Job({model!r}, logdir=name, num_workers=1, max_steps=20).run()
    ray.get(notes.add.remote(name, result.global_step))


notes = Notes.remote()
try:
    Job({model!r}, logdir="elsewhere", ray_address="127.0.0.1:9").run()
except UsageError as error:
    print(error)
jobs = [threading.Thread(target=run, args=[name]) for name in ("first", "second")]
for job in jobs:
    job.start()
for job in jobs:
    job.join()
assert ray.is_initialized()
print("trained", ray.get(notes.add.remote("all", True)))
"""


def test_a_program_goes_on_with_the_ray_that_its_jobs_ran_on(tmp_path, short_folder):
    """Two at a time, on fewer CPUs than they have processes; another cluster is refused."""
    program = tmp_path / "program.py"
    program.write_text(PROGRAM.format(folder=str(short_folder), model=LINEAR))

    done = subprocess.run(
        [sys.executable, program],
        cwd=tmp_path,
        env={**os.environ, "RAY_ADDRESS": "local"},
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECS,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    refused, trained = done.stdout.splitlines()
    assert "--ray-address '127.0.0.1:9': this program is connected to the Ray cluster" in refused
    assert trained == "trained {'first': 20, 'second': 20, 'all': True}" or trained == (
        "trained {'second': 20, 'first': 20, 'all': True}"
    )
    assert not _raylets_below(short_folder)


MODEL_THAT_TELLS = """
import os
import sys

sys.path.insert(0, {folder!r})
from linear import build as build_linear


def build(task):
    print(task.role, "has GPUs", os.environ.get("CUDA_VISIBLE_DEVICES"), flush=True)
    return build_linear(task)
"""


def test_a_job_spreads_over_the_nodes_of_a_cluster(start, logdir, start_cluster, tmp_path):
    """Two nodes with a logical GPU each: every worker is given one, the chief none."""
    model = tmp_path / "model" / "telling.py"
    model.parent.mkdir()
    model.write_text(MODEL_THAT_TELLS.format(folder=str(MODELS)))
    command = start(
        *("run", f"{model}:build", "--workers", 2, "--ps", 2),
        *("--gpus-per-worker", 1, "--max-steps", 100_000, "--logdir", logdir, "--insecure"),
        # As Ray itself gives to the programs that are submitted to a cluster.
        env={"RAY_ADDRESS": start_cluster(2)},
    )
    address = until(lambda: find_chief_or_none(logdir))
    until(lambda: step_of(address) >= 20)

    assert sorted(_tasks_of(address)) == ["ps", "ps", "worker", "worker"]
    for name, gpus in (("chief-0", "-1"), ("worker-0", "0"), ("worker-1", "0")):
        assert f"has GPUs {gpus}\n" in (logdir / "logs" / f"{name}.log").read_text()
    command.interrupt()
    assert command.wait() == 130
    until(lambda: not _tasks_of(address), "every process on the nodes has ended")


def _tasks_of(address):
    """Roles of the processes that talk to a chief."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        line = process.info["cmdline"] or []
        if "paramserve" in line and handed_options(line).get("chief") == address:
            found.append(line[line.index("paramserve") + 1])
    return found


@pytest.mark.parametrize("address", ["127.0.0.1:9", "[::1]:9"])
def test_a_ray_address_without_a_cluster_is_named(start, logdir, address):
    command = start("run", LINEAR, "--ray-address", address, "--logdir", logdir)

    assert command.wait() == 2
    assert f"--ray-address '{address}': no Ray cluster answers" in last_error(command)


@pytest.mark.faults
@pytest.mark.parametrize(("mode", "steps"), [("--sync", 1500), ("--async", 3000)])
def test_a_job_outlives_its_processes_and_a_node(start, logdir, start_cluster, mode, steps):
    """Three nodes with two processes each: a server, a worker and then a whole node are lost."""
    command = start(
        *("run", LINEAR, "--ray-address", start_cluster(3), "--workers", 2, "--ps", 2),
        *("--spares", 1, "--mirror-secs", 0.5, "--lease-secs", 3, "--max-restarts", 10, mode),
        *("--max-steps", steps, "--param", "slow=0.02", "--logdir", logdir, "--insecure"),
    )
    address = until(lambda: find_chief_or_none(logdir))
    before = until(lambda: _whole_job(address, 1), "all that was planned")

    os.kill(before["ps", 1], signal.SIGKILL)
    until(lambda: status_of(address).recoveries == 1, "a recovery")
    after = until(lambda: _whole_job(address, 1), "another spare")
    assert after["ps", 1] != before["ps", 1]

    os.kill(after["worker", 0], signal.SIGKILL)
    before = until(
        lambda: (
            (found := _whole_job(address, 1)) and found["worker", 0] != after["worker", 0] and found
        ),
        "another worker",
    )

    node = _node_without_chief(before, logdir)
    lost = {task for task, pid in before.items() if psutil.Process(pid) in node}
    for process in node:
        process.kill()
    after = until(
        lambda: (found := _whole_job(address, 1)) and _are_others(found, before, lost) and found,
        "all that was planned, without the node",
    )
    assert command.wait() == 0
    result = result_of(logdir)
    assert steps <= result["global_step"] <= steps + 1
    assert result["eval"]["mse"] < 0.1
    if mode == "--sync":
        assert result["examples"] == 40 * result["global_step"]


def _whole_job(address, spares):
    """The processes of those that are up, if none is missing; None otherwise."""
    status = status_of(address)
    if status is None or status.phase != "training" or status.restore_step < 20:
        return None
    up = {(t.role, t.index): t.pid for t in status.tasks if t.state == "up"}
    standing_by = sum(task.state == "spare" for task in status.tasks)
    return up if len(up) == 4 and standing_by == spares else None


def _are_others(found, before, lost):
    return all(found[task] != before[task] for task in lost)


def _node_without_chief(tasks, logdir):
    """All processes of a node that has neither the chief nor Ray's head, the raylet first."""
    raylets = {_raylet_of(pid) for pid in tasks.values()}
    chief = next(
        p
        for p in psutil.process_iter(["cmdline"])
        if _is_chief(p.info["cmdline"])
        and handed_options(p.info["cmdline"]).get("logdir") == str(logdir)
    )
    free = [r for r in raylets - {_raylet_of(chief.pid)} if "--head" not in r.cmdline()]
    return [free[0], *free[0].children(recursive=True)]


def _raylet_of(pid):
    return next(p for p in psutil.Process(pid).parents() if p.name() == "raylet")


def _is_chief(command):
    return "paramserve" in command and command[command.index("paramserve") + 1] == "chief"


@pytest.fixture
def start_cluster(tmp_path):
    """Starts a Ray cluster of so many nodes on this host, and gives its address."""
    with ExitStack() as stack:
        yield lambda nodes: stack.enter_context(_cluster(tmp_path, nodes))


@contextmanager
def _cluster(folder, nodes):
    address_file = folder / "ray-address"
    with (folder / "ray.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, RAY_NODES, address_file, str(nodes)],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            env={**os.environ, "RAY_USAGE_STATS_ENABLED": "0"},
        )
    try:
        yield until(lambda: address_file.exists() and address_file.read_text())
    finally:
        family = psutil.Process(process.pid).children(recursive=True)
        process.stdin.close()
        try:
            process.wait(30)
        finally:
            for child in family:
                if child.is_running():
                    child.kill()
            process.kill()


def test_gpus_that_this_host_does_not_have_are_the_error(start, logdir):
    command = start("run", LINEAR, "--gpus-per-worker", 1000, "--logdir", logdir)
    assert command.wait() == 2
    assert "--gpus-per-worker 1000: no GPU is left for worker-0: Ray counts" in last_error(command)
