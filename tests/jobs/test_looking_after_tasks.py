"""A launcher's handling of ended tasks, without real processes."""

import json
from types import SimpleNamespace

import pytest

from paramserve import SecurityOptions
from paramserve.errors import JobFailed
from paramserve.jobs.job import Job
from paramserve.jobs.lives import Lives
from paramserve.jobs.supervised_tasks import SupervisedTasks
from paramserve.jobs.supervisor import JobSupervisor
from paramserve.protos import status_pb2 as pb

from .conftest import LINEAR


class Handle:
    """A process that ends when the test says so."""

    def __init__(self, spec):
        self.name, self.options = spec.name, spec.options
        self.incarnation = spec.incarnation
        self.code = None
        self.said = []

    def poll(self):
        return self.code

    def log_tail(self, lines):
        return self.said


class Watch:
    """A job of two workers and one parameter server, whose processes are all made up."""

    def __init__(self, logdir, **options):
        job = Job(LINEAR, logdir=str(logdir), launcher="process", num_workers=2, **options)
        self.job_id = job.processes.job_id
        self.started = []
        launcher = SimpleNamespace(start=self._start)
        self.lives = Lives(launcher)
        self._tasks = SupervisedTasks(job.processes, self.lives, job._restarts)
        self._supervisor = JobSupervisor(job.processes, launcher, job._restarts, SimpleNamespace())
        self._supervisor._client = SimpleNamespace(address="localhost:7077", close=lambda: None)
        self.stopped_because = ""
        self._tasks.start("localhost:7077")

    def __getitem__(self, name):
        """The newest process of a name."""
        return [handle for handle in self.started if handle.name == name][-1]

    def look(self, **states):
        """Looks at a status in which some tasks are in a state of their own: `worker_0="lost"`."""
        status = pb.JobStatus(phase="training", wanted_ps=1, wanted_workers=2)
        for name in ("ps_0", "worker_0", "worker_1"):
            role, _, index = name.partition("_")
            state = states.get(name, "up")
            leaves = {"leaves_in_secs": 9.0} if state == "leaving" else {}
            status.tasks.add(role=role, index=int(index), state=state, address=name, **leaves)
        self.stopped_because = self._tasks.look_after(status, self._supervisor._client.address)
        return [handle.name for handle in self.started[3:]]

    def ended(self, **lives):
        """Returns the ended ones among the lives that a chief counts: `worker_0=handle`."""
        status = pb.JobStatus(phase="training")
        for name, handle in lives.items():
            role, _, index = name.partition("_")
            state = "spare" if role == "spare" else "up"
            status.tasks.add(
                role=role, index=int(index), state=state, incarnation=handle.incarnation
            )
        return self.lives.find_ended(status)

    def look_for_chief(self, **job_file):
        """Looks where the chief is, by what it has written; returns its address."""
        content = json.dumps(job_file)
        self._supervisor._chief = SimpleNamespace(read_file=lambda path: content)
        self._supervisor._follow_chief()
        return self._supervisor._client.address

    def _start(self, spec):
        self.started.append(Handle(spec))
        return self.started[-1]


@pytest.fixture
def watch(tmp_path):
    return lambda **options: Watch(tmp_path, **options)


def test_who_lives_is_left_alone(watch):
    assert watch().look() == []


def test_a_chief_that_was_started_again_elsewhere_is_followed(watch):
    job = watch(security=SecurityOptions(insecure=True))
    assert job.look_for_chief(job_id="another", address="host-b:1") == "localhost:7077"
    assert job.look_for_chief(job_id=job.job_id, address="host-b:1") == "host-b:1"
    job["worker-0"].code = -9
    job.look()
    assert job["worker-0"].options["chief"] == "host-b:1"


def test_a_killed_task_is_started_again_until_the_budget_is_spent(watch):
    job = watch(max_restarts=1)
    job["worker-1"].code = -9
    assert job.look() == ["worker-1"]
    job["worker-1"].code = -9
    job["worker-1"].said = ["a line", "error: the chief declared this task lost"]
    assert job.look() == ["worker-1"]
    assert job.stopped_because == (
        "worker-1: the chief declared this task lost; started again once within 600 s; "
        "--max-restarts 1 allows no more"
    )


def test_a_preempted_task_is_started_again_and_takes_nothing_from_the_budget(watch):
    job = watch(max_restarts=0)
    job["worker-1"].code = 143
    assert job.look(worker_1="preempted") == ["worker-1"]
    assert job.stopped_because == ""


def test_a_task_that_is_preempted_before_it_joined_has_not_failed(watch):
    job = watch()
    job["worker-1"].code = 143
    assert job.look(worker_1="") == ["worker-1"]


def test_a_task_that_ends_again_and_again_is_started_again_later_and_later(watch):
    job = watch(max_restarts=9)
    job["worker-1"].code = -9
    assert job.look() == ["worker-1"]
    job["worker-1"].code = -9
    assert job.look() == ["worker-1"], "not before a second has passed"
    assert job.stopped_because == ""


def test_what_follows_a_task_that_was_preempted_has_to_be_able_to_start(watch):
    job = watch()
    job["worker-1"].code = 143
    job.look(worker_1="preempted")
    job["worker-1"].code = 1
    job["worker-1"].said = ["error: no such data format"]
    job.look(worker_1="preempted")
    assert job.stopped_because == "worker-1 failed before it joined: no such data format"


def test_a_spare_is_started_for_a_server_that_has_to_go_and_takes_its_place(watch):
    job = watch(max_restarts=0)
    assert job.look(ps_0="leaving") == ["spare-0"]
    assert job.look(ps_0="leaving") == ["spare-0"], "one is enough"
    assert job["spare-0"].options["spare"]
    job["ps-0"].code = 143
    assert job.look() == ["spare-0"], "nothing is started for a replaced task"
    job["spare-0"].code = 143
    assert job.look() == ["spare-0", "ps-0"]


def test_a_job_that_was_told_to_grow_gets_more_tasks_once(watch):
    job = watch()
    grown = pb.JobStatus(phase="training", wanted_ps=2, wanted_workers=3)
    for _ in range(2):
        job._tasks.look_after(grown, "localhost:7077")
        assert [handle.name for handle in job.started[3:]] == ["worker-2", "spare-0"]


def test_every_process_is_told_how_long_it_can_stay(watch):
    for handle in watch(grace_secs=12.5).started:
        assert handle.options["grace_secs"] == 12.5


def test_a_chief_that_takes_an_ended_process_for_alive_is_told_until_it_knows(watch):
    """The next chief may have been told nothing: it is what it says that counts."""
    job = watch()
    former = job["worker-0"]
    assert job.ended(worker_0=former) == []
    former.code = -9
    assert job.ended(worker_0=former) == job.ended(worker_0=former) == [former.incarnation]
    assert job.ended() == [], "it is lost to the chief already"


def test_what_is_known_of_a_former_life_says_nothing_of_the_present_one(watch):
    job = watch()
    former = job["worker-0"]
    former.code = -9
    job.look()
    present = job["worker-0"]
    assert present.incarnation != former.incarnation
    assert present.options["incarnation"] == present.incarnation
    assert job.ended(worker_0=present) == []
    assert job.ended(worker_0=former, worker_1=present) == [former.incarnation]


def test_a_process_with_two_places_is_told_of_once_and_one_of_another_launcher_never(watch):
    job = watch()
    process = job["ps-0"]
    process.code = 1
    by_hand = SimpleNamespace(incarnation="by hand")
    assert job.ended(spare_2=process, worker_0=process, worker_7=by_hand) == [process.incarnation]


def test_who_looks_for_a_chief_that_has_moved_and_had_not_joined_starts_again(watch):
    job = watch()
    lives = job.lives
    joined, ended, loading = job["ps-0"], job["worker-0"], job["worker-1"]
    ended.code = -9
    status = pb.JobStatus(tasks=[pb.TaskStatus(incarnation=joined.incarnation, state="up")])
    assert lives.take_stranded(status, "localhost:7077") == [], "the chief is where it was"
    assert lives.take_stranded(status, "host-b:1") == [loading]
    assert lives.take_stranded(status, "host-b:1") == [], "it has been told"


def test_a_chief_that_cannot_be_started_is_the_error_that_the_job_leaves(tmp_path):
    class NoRoom:
        def start(self, spec):
            raise JobFailed(f"{spec.name}: no node has room")

        def close(self):
            pass

    with pytest.raises(JobFailed, match="chief-0: no node has room"):
        Job(LINEAR, logdir=str(tmp_path), launcher=NoRoom()).run()
    result = json.loads((tmp_path / "result.json").read_text())
    assert (result["reason"], result["error"]) == ("failed", "chief-0: no node has room")
