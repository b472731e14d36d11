"""Synchronous jobs whose workers come, go and end at different times."""

from support.waiting import until

from .conftest import LINEAR, result_of, status_of, step_of

SLOW = ("--param", "slow=0.01")


def workers_of(address):
    status = status_of(address)
    return {t.index: t for t in status.tasks if t.role == "worker"} if status else {}


def test_when_a_workers_input_ends_the_others_go_on(start, start_job, logdir):
    address = start_job("--workers", 2, "--max-steps", 150, *SLOW)
    short = start("worker", LINEAR, "--chief", address, "--param", "limit=30")
    start("worker", LINEAR, "--chief", address)

    assert short.wait() == 0
    assert step_of(address) < 150
    until(lambda: (logdir / "result.json").exists())

    result = result_of(logdir)
    assert result["reason"] == "max_steps"
    assert result["global_step"] in (150, 151)
    # A gradient of each made the first 30 steps, and two of the other one the rest.
    assert result["examples"] >= 2 * 20 * 150
    assert result["eval"]["mse"] < 0.5


def test_steps_are_of_one_gradient_of_each_worker(start, start_job, logdir):
    """The first worker waits for the second, and from then on none is ahead."""
    address = start_job("--workers", 2, "--max-steps", 60, "--lease-secs", 60)
    start("worker", LINEAR, "--chief", address)
    until(lambda: 0 in workers_of(address))
    start("worker", LINEAR, "--chief", address, *SLOW)
    until(lambda: (logdir / "result.json").exists())

    assert result_of(logdir)["global_step"] == 60
    assert result_of(logdir)["examples"] == 60 * 2 * 20
