"""The chief's gRPC server as its clients see it: membership, status, health and reflection."""

import queue
import socket
import threading
import time

import grpc
import pytest
from google.protobuf import descriptor_pool, message_factory
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

from paramserve.chief.checkpoints.checkpoints import Checkpoint
from paramserve.chief.paced_call import PacedCall
from paramserve.chief.services import status_servicer
from paramserve.chief.services.limits import Limits, TooMuch
from paramserve.chief.state import Phase
from paramserve.cluster.applicant import Applicant
from paramserve.cluster.chief_client import JobStopping, LeaseLost, MembershipClient
from paramserve.cluster.heartbeat import Heartbeat
from paramserve.cluster.spec import Role, Task
from paramserve.cluster.status_client import StatusClient
from paramserve.data_plane.placement import ServerLoad
from paramserve.data_plane.traffic import Traffic
from paramserve.errors import JobFailed, UsageError, WaitTimeout
from paramserve.protos import membership_pb2 as pb
from support.membership import beat, register
from support.waiting import until

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.fixture
def join():
    """Registers a task with a client of its own."""
    clients = []

    def join(job, role, life, **more):
        client = MembershipClient(job.address)
        clients.append(client)
        max_wait_secs = more.pop("max_wait_secs", 30.0)
        more = {"address": f"{life}.host:2222", **more}
        client.register(Applicant(role, incarnation=life, **more), max_wait_secs=max_wait_secs)
        return client

    yield join
    for client in clients:
        client.close()


@pytest.fixture
def channel():
    channels = []

    def open_channel(job):
        channels.append(grpc.insecure_channel(job.address))
        return channels[-1]

    yield open_channel
    for each in channels:
        each.close()


# Membership


def test_a_task_registers_beats_waits_and_leaves(serve, join):
    job = serve(num_ps=1, num_workers=3, params={"rate": "0.1"}, max_steps=50, sync=False)
    ps = join(job, Role.PS, "p", pid=11, metrics_address="p.host:9")
    worker = join(job, Role.WORKER, "w", index=2)
    assert ps.registration.task == Task(Role.PS, 0)
    assert worker.registration.task == Task(Role.WORKER, 2)
    config = worker.registration.job
    assert (config.job_id, config.num_ps, config.num_workers) == ("job-1", 1, 3)
    assert (config.max_steps, config.sync, dict(config.params)) == (50, False, {"rate": "0.1"})
    [record] = job.membership.up(Role.PS)
    assert (record.address, record.pid, record.metrics_address) == ("p.host:2222", 11, "p.host:9")

    reply = beat(worker, pb.WorkerReport(local_steps=4, loss=0.5, metrics={"m": 2.0}))
    assert (reply.generation, reply.stop, reply.write_summaries) == (1, False, True)
    report = job.membership.up(Role.WORKER)[0].report
    assert (report.local_steps, report.loss, dict(report.metrics)) == (4, 0.5, {"m": 2.0})

    job.membership.mark_ready(1)
    view = worker.await_ready(min_generation=1, max_wait_secs=30.0)
    assert view == job.membership.view

    worker.leave(pb.LeaveRequest.FAILED, "out of memory")
    worker.leave(pb.LeaveRequest.DONE)
    [failed] = job.membership.failures()
    assert (failed.task, failed.error) == (Task(Role.WORKER, 2), "out of memory")


def test_a_server_that_has_to_go_waits_until_the_chief_lets_it(serve, join):
    job = serve(num_ps=1)
    ps, worker = join(job, Role.PS, "p"), join(job, Role.WORKER, "w")
    assert not ps.give_notice(grace_secs=60.0, timeout_secs=30.0)
    heartbeat = Heartbeat(ps, max_silence_secs=60)
    heartbeat.start()
    assert not heartbeat.may_go.wait(0.2)
    with StatusClient(job.address) as client:
        status = client.status()
    assert [0 < task.leaves_in_secs <= 60 for task in status.tasks] == [True, False]
    job.state.notices.release(job.state.notices.pending())
    assert heartbeat.may_go.wait(30)
    heartbeat.stop()
    assert ps.give_notice(grace_secs=60.0, timeout_secs=30.0), "a second answer is as the first"
    with pytest.raises(LeaseLost, match="ps:0 was declared lost: preempted"):
        beat(ps)
    worker.leave(pb.LeaveRequest.PREEMPTED)
    with StatusClient(job.address) as client:
        status = client.status()
    assert [(task.state, task.leaves_in_secs) for task in status.tasks] == [("preempted", 0.0)] * 2
    assert dict(status.preemptions) == {"ps": 1, "worker": 1}


@pytest.fixture
def closed_address():
    """The address of a process that has ended: the port is bound, and refuses connections."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{bound.getsockname()[1]}"


def until_silent(job):
    """Until the first task has missed two heartbeats."""
    silence_secs = 2 * job.state.options.heartbeat_secs
    until(lambda: job.membership.heartbeat_age(job.membership.records()[0]) > silence_secs)


@pytest.mark.parametrize("index", [None, 0])
def test_a_place_whose_process_is_gone_is_given_away_without_waiting(
    serve, join, closed_address, index
):
    """Roles that are started by hand have no launcher that could tell."""
    job = serve(num_ps=1, lease_secs=600.0)
    join(job, Role.PS, "old", address=closed_address)
    until_silent(job)
    new = join(job, Role.PS, "new", index=index)
    assert new.registration.task == Task(Role.PS, 0)
    assert [r.incarnation for r in job.membership.up(Role.PS)] == ["new"]


def test_a_place_goes_to_another_process_at_the_same_address(serve, join):
    """Two processes cannot listen there: the former one has ended."""
    job = serve(lease_secs=600.0)
    join(job, Role.WORKER, "old", index=1, address="w.host:2222")
    until_silent(job)
    assert (
        join(job, Role.WORKER, "new", index=1, address="w.host:2222").registration.task.index == 1
    )


def test_a_place_whose_process_listens_or_was_just_heard_of_stays_its_own(
    serve, join, closed_address
):
    job = serve(lease_secs=600.0, heartbeat_secs=200.0)
    join(job, Role.WORKER, "heard", index=0, address=closed_address)
    listening = serve(lease_secs=600.0)
    join(listening, Role.WORKER, "frozen", index=0, address=listening.address)
    until_silent(listening)
    for each in (job, listening):
        with pytest.raises(WaitTimeout, match="worker:0 is held by"):
            join(each, Role.WORKER, "new", index=0, max_wait_secs=0.3)


def test_a_launcher_tells_which_processes_have_ended(serve, join):
    job = serve(lease_secs=600.0)
    join(job, Role.WORKER, "old", index=0)
    with StatusClient(job.address) as client:
        [task] = client.status().tasks
        assert (task.state, task.incarnation) == ("up", "old")
        client.report_ended([task.incarnation, "of no task"])
        [task] = client.status().tasks
    assert (task.state, task.error) == ("lost", "its process is gone")
    assert join(job, Role.WORKER, "new", index=0).registration.task.index == 0


def test_only_the_first_live_worker_writes_summaries(serve, join):
    job = serve()
    first, second = join(job, Role.WORKER, "a"), join(job, Role.WORKER, "b")
    assert beat(first).write_summaries
    assert not beat(second).write_summaries
    first.leave(pb.LeaveRequest.DONE)
    assert beat(second).write_summaries


def test_a_workers_summaries_are_written_by_the_chief(serve, join):
    job = serve()
    written = queue.Queue()
    worker = join(job, Role.WORKER, "a")
    job.state.write_summary = lambda *call: written.put(call)
    steps = range(50)
    for step in steps:
        worker.write_summary(step, b"a summary")
    arrived = [written.get(timeout=10) for _ in steps]
    assert sorted(arrived, key=lambda call: call[1]) == [(b"a summary", step) for step in steps]
    job.state.write_summary = None  # The job is over: later summaries are dropped.
    worker.write_summary(50, b"too late")
    beat(worker)


def test_someone_hears_of_every_task_that_comes_or_goes(serve, join):
    changes = []

    async def note():
        changes.append(len(job.membership.up()))

    job = serve(on_change=note)
    worker = join(job, Role.WORKER, "a")
    worker.leave(pb.LeaveRequest.DONE)
    assert changes == [1, 0]


def test_a_task_is_in_the_list_for_the_next_chief_when_it_has_its_answer(serve, join):
    """Otherwise a chief that is killed right then has a successor that does not know the task."""
    listed = []

    def write():
        time.sleep(0.05)  # A call of this length is not over by chance.
        listed[:] = [record.incarnation for record in job.membership.alive()]

    lists = PacedCall(write)
    lists.start()
    try:
        job = serve(on_change=lists.make)
        for count, life in enumerate(("a", "b", "c"), start=1):
            worker = join(job, Role.WORKER, life)
            assert len(listed) == count
        worker.leave(pb.LeaveRequest.DONE)
        assert listed == ["a", "b"]
    finally:
        lists.stop()


def test_a_place_out_of_range_is_refused_in_words(serve, join):
    job = serve(num_ps=2)
    with pytest.raises(JobFailed, match=rf"{job.address} refused: index 5 of a ps: .* below 2"):
        join(job, Role.PS, "p", index=5)


def test_a_role_that_does_not_exist_is_the_callers_mistake(serve, channel):
    call = channel(serve()).unary_unary(
        "/paramserve.Membership/Register",
        request_serializer=pb.RegisterRequest.SerializeToString,
        response_deserializer=pb.RegisterResponse.FromString,
    )
    with pytest.raises(grpc.RpcError) as caught:
        call(pb.RegisterRequest(role="driver", address="a:1", incarnation="x"), timeout=30)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "'driver'" in caught.value.details()


@pytest.fixture
def attend(serve, join):
    """Makes a task attend: `attend(job, role, life)`; returns its heartbeat and its news."""
    running = []

    def attend(job, role, life, **more):
        news = queue.Queue()
        client = join(job, role, life, **more)
        heartbeat = Heartbeat(client, max_silence_secs=60.0, on_news=news.put)
        heartbeat.start()
        running.append(heartbeat)
        news.get(timeout=30)
        return heartbeat, news

    yield attend
    for heartbeat in running:
        heartbeat.stop()


def hear(news, wanted):
    """Takes news until one is as wanted."""
    deadline = time.monotonic() + 30
    while not wanted(heard := news.get(timeout=max(0.0, deadline - time.monotonic()))):
        pass
    return heard


# So long that nothing is heard by asking.
RARE = {"heartbeat_secs": 1000.0, "lease_secs": 2000.0}


def test_what_concerns_all_is_told_to_all_between_heartbeats(serve, attend):
    job = serve(num_ps=1, **RARE)
    tasks = [attend(job, Role.PS, "p"), *(attend(job, Role.WORKER, f"w{i}") for i in range(20))]
    job.membership.mark_ready(1)
    job.membership.renew_generation()
    job.membership.mark_unready(1)
    for _, news in tasks:
        hear(news, lambda each: (each.generation, each.over) == (2, 1))
    job.state.plan.next = (3, 1)
    with job.membership.changed:
        job.membership.changed.notify_all()
    for _, news in tasks:
        hear(news, lambda each: (each.next_num_ps, each.next_layout) == (3, 1))
    job.membership.begin_stop(Role.WORKER)
    for heartbeat, _ in tasks[1:]:
        assert heartbeat.stopping.wait(30)
    assert not tasks[0][0].stopping.is_set()


def test_what_concerns_one_task_is_told_to_that_one(serve, attend):
    job = serve(**RARE)
    (_, first), (second_heartbeat, second) = (attend(job, Role.WORKER, life) for life in "ab")
    job.membership.leave_session(Task(Role.WORKER, 0), "a", 4)
    assert hear(first, lambda each: each.leave_session).leave_session == 4
    job.membership.dismiss(Role.WORKER, above=1)
    assert second_heartbeat.stopping.wait(30)
    assert not any(each.stop or each.leave_session for each in list(first.queue))
    assert not any(each.leave_session for each in list(second.queue))


def test_a_spare_learns_at_once_whose_place_it_has(serve, attend):
    job = serve(num_ps=1, **RARE)
    attend(job, Role.PS, "p")
    heartbeat, news = attend(job, Role.PS, "s", spare=True)
    job.membership.lose("p", "it is gone")
    assert hear(news, lambda each: each.task.index == 0).generation == 2
    assert heartbeat.latest.task.index == 0


def test_a_task_that_is_lost_learns_it_at_once(serve, attend):
    job = serve(**RARE)
    heartbeat, _ = attend(job, Role.WORKER, "a")
    job.membership.lose("a", "it hangs again and again")
    assert heartbeat.stopping.wait(30)
    with pytest.raises(JobFailed, match=r"worker:0 was .*: it hangs again"):
        heartbeat.check()


def test_a_hold_is_told_to_those_that_answer_and_their_answers_end_the_wait(serve, attend):
    job = serve(**RARE)
    heartbeats = [attend(job, Role.WORKER, f"w{i}")[0] for i in range(5)]
    told = queue.Queue()

    def listen(heartbeat):
        def note(number, is_held):
            told.put(is_held)
            if is_held:
                heartbeat.answer_hold(number)

        heartbeat.hear_holds(note)

    for heartbeat in heartbeats[1:]:
        listen(heartbeat)
        assert told.get(timeout=30) is False
    for _ in range(2):
        with job.state.holds.paused(30.0) as all_answered:
            assert all_answered
    assert any(told.get(timeout=30) for _ in range(8))


def test_a_task_that_opens_another_stream_has_that_one_alone(serve, attend):
    job = serve(**RARE)
    heartbeat, _ = attend(job, Role.WORKER, "a")
    again = Heartbeat(heartbeat._client, max_silence_secs=60.0)
    heartbeat._ended.set()  # The first stream breaks without a word.
    again.start()
    until(lambda: again.latest.task.role == "worker")
    job.membership.begin_stop(Role.WORKER)
    assert again.stopping.wait(30)
    again.stop()


def test_a_stream_without_a_report_is_closed(serve, channel):
    call = channel(serve()).stream_stream(
        "/paramserve.Membership/Attend",
        request_serializer=pb.TaskReport.SerializeToString,
        response_deserializer=pb.TaskNews.FromString,
    )
    with pytest.raises(grpc.RpcError, match="send a TaskReport first"):
        list(call(iter([])))


def test_the_ends_news_reaches_a_task_with_its_heartbeat(serve, join):
    job = serve()
    heartbeat = Heartbeat(join(job, Role.WORKER, "a"), max_silence_secs=60)
    heartbeat.start()
    try:
        assert not heartbeat.stopping.is_set()
        job.membership.begin_stop(Role.WORKER)
        assert heartbeat.stopping.wait(30)
        heartbeat.check()  # Being told to stop is no error.
    finally:
        heartbeat.stop()
    assert not heartbeat.is_running


def test_a_task_that_was_taken_as_lost_learns_it(serve, join):
    job = serve(heartbeat_secs=0.2, lease_secs=0.4)
    client = join(job, Role.WORKER, "a")
    time.sleep(0.5)  # The lease is the server's own, so it has to run out in fact.
    assert job.membership.expire() == [Task(Role.WORKER, 0)]
    with pytest.raises(LeaseLost, match=r"worker:0 was declared lost: no heartbeat for"):
        beat(client)
    heartbeat = Heartbeat(client, max_silence_secs=60)
    heartbeat.start()
    assert heartbeat.stopping.wait(30)
    with pytest.raises(JobFailed, match="declared this task lost: worker:0 was declared lost"):
        heartbeat.check()
    heartbeat.stop()


def test_a_chief_that_died_is_given_up_after_the_limit(serve, join):
    job = serve(heartbeat_secs=0.1, lease_secs=60.0)
    heartbeat = Heartbeat(join(job, Role.WORKER, "a"), max_silence_secs=1.0)
    heartbeat.start()
    job.server.stop(0.0)
    stopped = time.monotonic()
    assert heartbeat.stopping.wait(60)
    assert time.monotonic() - stopped > 0.8  # Not as soon as the stream broke.
    with pytest.raises(WaitTimeout, match=rf"chief at {job.address} has not answered .*limit 1 s"):
        heartbeat.check()
    heartbeat.stop()


def test_a_waiting_task_is_told_when_the_job_ends(serve, join):
    job = serve()
    client = join(job, Role.WORKER, "a")
    timer = threading.Timer(0.3, job.membership.begin_stop, [Role.WORKER])
    timer.start()
    with pytest.raises(JobStopping):
        client.await_ready(min_generation=1, max_wait_secs=120.0)
    timer.join()


def test_what_a_task_waited_for_in_vain_is_named(serve, join):
    job = serve(num_ps=2)
    join(job, Role.PS, "p")
    client = join(job, Role.WORKER, "a")
    began = time.monotonic()
    with pytest.raises(WaitTimeout, match=r"max_wait_secs=0\.4 ran out: .*ps:1 \(never heard of\)"):
        client.await_ready(min_generation=1, max_wait_secs=0.4)
    assert 0.4 <= time.monotonic() - began < 30


# Status


def test_the_status_tells_what_the_job_knows(serve, join):
    job = serve(num_ps=1, max_steps=100, logdir="runs/census")
    join(job, Role.PS, "p", pid=5)
    worker = join(job, Role.WORKER, "a")
    beat(worker, pb.WorkerReport(local_steps=12, examples=120, loss=0.25, recoveries=1))
    job.state.enter(Phase.INITIALIZING)
    job.state.enter(Phase.TRAINING)
    job.state.loads = {0: ServerLoad(4096, 3, "w", 4000)}
    job.state.traffic = {0: Traffic(pulled_bytes=4000, pushed_bytes=3000, transfers=2)}
    job.state.checkpoint = Checkpoint("runs/census/model.ckpt-10", 10, 1.7e9, 0.5)
    reports = [r.report for r in job.membership.up(Role.WORKER)]
    job.state.progress.update(0.0, 0, 0, reports)
    job.state.progress.update(2.0, 12, 120, reports)
    with StatusClient(job.address) as client:
        status = client.status()
    assert (status.phase, status.detail, status.generation, status.job_id) == (
        "training",
        "",
        1,
        "job-1",
    )
    assert (status.global_step, status.max_steps, status.examples) == (12, 100, 120)
    assert (status.steps_per_second, status.examples_per_second) == (6.0, 60.0)
    assert (status.loss, status.sync, status.logdir) == (0.25, True, "runs/census")
    assert (status.checkpoint, status.checkpoint_step) == ("runs/census/model.ckpt-10", 10)
    assert status.checkpoint_time == 1.7e9
    ps, task = status.tasks
    assert (ps.role, ps.index, ps.state, ps.pid, ps.parameter_bytes) == ("ps", 0, "up", 5, 4096)
    assert (ps.variables, ps.largest_variable, ps.largest_variable_bytes) == (3, "w", 4000)
    assert (ps.pulled_bytes, ps.pushed_bytes, ps.transfers) == (4000, 3000, 2)
    assert (task.role, task.index, task.address) == ("worker", 0, "a.host:2222")
    assert (task.local_steps, task.examples, task.loss, task.recoveries) == (12, 120, 0.25, 1)
    assert not ps.HasField("loss")


def test_a_job_that_waits_says_for_what(serve):
    with StatusClient(serve(num_ps=1).address) as client:
        status = client.status()
    assert status.phase == "waiting"
    assert status.detail == "waiting for ps:0 (never heard of)"
    assert not status.HasField("loss")


def test_a_watcher_sees_the_end_even_if_it_comes_between_two_looks(serve):
    job = serve()
    phases = []
    with StatusClient(job.address) as client:
        for status in client.watch(interval_secs=0.05):
            phases.append(status.phase)
            if status.phase == "waiting":
                job.state.enter(Phase.INITIALIZING)
                job.state.enter(Phase.TRAINING)
            elif status.phase == "training":
                job.state.enter(Phase.STOPPING)
                job.state.enter(Phase.DONE)
    assert phases[0] == "waiting"
    assert phases[-1] == "done"
    assert "training" in phases


def test_a_checkpoint_can_be_asked_for_once_there_is_a_model(serve):
    job = serve()
    with StatusClient(job.address) as client:
        with pytest.raises(JobFailed, match="refused: the job is waiting, there is no model"):
            client.save_checkpoint()
        job.state.save_checkpoint = lambda: Checkpoint("runs/x/model.ckpt-3", 3, 0.0, 0.1)
        saved = client.save_checkpoint()
        assert (saved.path, saved.global_step) == ("runs/x/model.ckpt-3", 3)

        def fail():
            raise JobFailed("the checkpoint was not written: disk full")

        job.state.save_checkpoint = fail
        with pytest.raises(JobFailed, match=rf"{job.address} refused: .*disk full"):
            client.save_checkpoint()


def test_the_first_reason_to_stop_stays(serve):
    job = serve()
    with StatusClient(job.address) as client:
        client.stop("worker-0 was killed once too often")
        client.stop()
    assert job.state.is_ending
    with pytest.raises(JobFailed, match="once too often"):
        job.state.raise_if_failed()


def test_a_plain_stop_is_no_failure(serve):
    job = serve()
    with StatusClient(job.address) as client:
        client.stop()
    assert job.state.is_ending
    job.state.raise_if_failed()


# Health, reflection, port


def test_health_is_up_while_it_serves_and_down_before_it_goes(serve, channel):
    job = serve()
    stub = health_pb2_grpc.HealthStub(channel(job))
    for name in ("", "paramserve.Membership", "paramserve.Status"):
        request = health_pb2.HealthCheckRequest(service=name)
        assert stub.Check(request, timeout=30).status == SERVING
    watch = stub.Watch(health_pb2.HealthCheckRequest(service="paramserve.Status"), timeout=60)
    assert next(watch).status == SERVING
    stopping = threading.Thread(target=job.server.stop, args=(1.0,))
    stopping.start()
    assert next(watch).status == NOT_SERVING  # The stream still lives: it is said before it goes.
    watch.cancel()
    stopping.join(30)
    assert not stopping.is_alive()


def test_status_can_be_called_without_generated_code(serve, channel):
    """Asks as `grpcurl` does: for the services, then for the types of the messages."""
    job = serve(num_ps=1, max_steps=7)
    connection = channel(job)
    database = ProtoReflectionDescriptorDatabase(connection)
    assert set(database.get_services()) >= {
        "paramserve.Membership",
        "paramserve.Status",
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
    }
    service = descriptor_pool.DescriptorPool(database).FindServiceByName("paramserve.Status")
    method = service.methods_by_name["GetStatus"]
    request = message_factory.GetMessageClass(method.input_type)
    reply = message_factory.GetMessageClass(method.output_type)
    call = connection.unary_unary(
        f"/{service.full_name}/{method.name}",
        request_serializer=request.SerializeToString,
        response_deserializer=reply.FromString,
    )
    status = call(request(), timeout=30)
    assert type(status).__module__ != "paramserve.protos.status_pb2"
    assert (status.phase, status.max_steps, status.job_id) == ("waiting", 7, "job-1")


def test_a_port_in_use_is_refused(serve):
    first = serve()
    with pytest.raises(UsageError, match=rf"--port {first.server.port} is in use"):
        serve(port=first.server.port)
    with StatusClient(first.address) as client:
        assert client.status().job_id == "job-1"


def test_more_tasks_wait_than_any_pool_has_threads_and_heartbeats_are_answered(serve, join):
    job = serve(num_ps=1)
    clients = [join(job, Role.WORKER, f"w{i}") for i in range(8)]
    results = queue.Queue()

    def wait(client):
        results.put(client.await_ready(min_generation=1, max_wait_secs=60.0))

    threads = [threading.Thread(target=wait, args=(clients[i % 8],)) for i in range(300)]
    for thread in threads:
        thread.start()
    for client in clients:
        assert beat(client).generation == 0
    join(job, Role.PS, "p")
    job.membership.mark_ready(1)
    assert {results.get(timeout=30).generation for _ in threads} == {1}
    for thread in threads:
        thread.join(30)


# Limits


def test_what_is_too_large_or_too_many_is_refused_with_the_limit_and_a_metric(
    serve, join, monkeypatch
):
    refused = []
    limits = Limits(refused.append)
    limits.check("tasks", 3, 3, "wait")
    with pytest.raises(TooMuch, match="tasks: 4 is more than 3; wait"):
        limits.check("tasks", 4, 3, "wait")
    with (
        limits.stream("watchers", "ipv4:1.2.3.4:5", 1),
        pytest.raises(TooMuch, match="watchers"),
        limits.stream("watchers", "ipv4:1.2.3.4:6", 1),
    ):
        pass
    assert limits.open["watchers"] == 0
    assert refused == ["tasks", "open streams of watchers"]

    job = serve()
    worker = join(job, Role.WORKER, "a")
    with pytest.raises(JobFailed, match=r"message bytes: .* is more than 1,048,576"):
        join(job, Role.WORKER, "b" * (2 << 20))
    huge = pb.WorkerReport(metrics={"m" * (2 << 20): 1.0})
    with pytest.raises(grpc.RpcError, match="message bytes"):
        beat(worker, huge)
    assert beat(worker).task.role == "worker"

    monkeypatch.setattr(status_servicer, "MAX_WATCHERS", 2)
    with StatusClient(job.address) as client:
        watches = [client.watch(interval_secs=30.0) for _ in range(2)]
        assert [next(watch).phase for watch in watches] == ["waiting"] * 2
        with pytest.raises(grpc.RpcError, match="open streams of watchers: 3 is more than 2"):
            next(client.watch())


def test_a_chief_that_is_behind_says_so(serve, join):
    job = serve()
    job.state.enter(Phase.INITIALIZING)
    job.state.enter(Phase.TRAINING)
    job.state.control.note(3.0, 2.5)
    job.state.control.note(0.0, 2.5)
    with StatusClient(job.address) as client:
        status = client.status()
    assert (status.control_lag_secs, status.lease_extension_secs) == (3.0, 2.5)
    assert "the chief is behind: its control server was 3.0 s late" in status.detail


def test_the_status_of_thousands_of_tasks_names_those_that_need_a_look(serve, join):
    job = serve(heartbeat_secs=1000.0, lease_secs=2000.0)
    for number in range(2500):
        register(job.membership, Role.WORKER, address=f"h{number}:1", incarnation=f"w{number}")
    job.membership.lose("w7", "its process is gone")
    for record in job.membership.records():
        record.report.local_steps = 1000
    slow, silent = job.membership.records()[1234], job.membership.records()[2345]
    slow.report.local_steps, silent.heard = 3, silent.heard - 900.0
    with StatusClient(job.address) as client:
        status = client.status(all_tasks=False)
        full = client.status()
    named = {task.index for task in status.tasks}
    assert {7, 1234, 2345} <= named
    assert len(named) <= 100
    totals = [(total.role, total.state, total.count) for total in status.totals]
    assert totals == [("worker", "lost", 1), ("worker", "up", 2499)]
    assert (status.num_tasks, len(status.SerializeToString()) < 20_000) == (2500, True)
    assert [task.index for task in full.tasks] == list(range(2500))
