"""`MonitoredSession` and its kin: initialization, hooks, recovery, and an end that comes soon."""

import functools
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import tensorflow as tf

from paramserve import train

v1 = tf.compat.v1


@pytest.fixture
def step_op():
    return train.get_or_create_global_step().assign_add(1)


class Recorder(train.SessionRunHook):
    def __init__(self, name="hook", calls=None):
        self.name = name
        self.calls = [] if calls is None else calls
        self.sessions = []

    def begin(self):
        self.calls.append(f"{self.name} begin")

    def after_create_session(self, session, coord):
        self.sessions.append(session)
        self.calls.append(f"{self.name} session")

    def after_run(self, run_context, run_values):
        self.calls.append(f"{self.name} step")

    def end(self, session):
        self.calls.append(f"{self.name} end")


class FailOnce(train.SessionRunHook):
    """Loses the session in one of the steps."""

    def __init__(self, error):
        self.error = error

    def after_run(self, run_context, run_values):
        if self.error is not None:
            error, self.error = self.error, None
            raise error


def lost(error=tf.errors.AbortedError):
    return error(None, None, "the parameter server is back, in another life")


def run_and_fail(session, step_op):
    session.run(step_op)
    raise KeyError("a bug")


def stuck_queue_runner():
    """A queue runner that waits forever, as a synchronous chief's may."""
    never, filled = (tf.queue.FIFOQueue(1, [tf.float32]) for _ in range(2))
    train.add_queue_runner(train.QueueRunner(filled, [filled.enqueue(never.dequeue())]))


# MonitoredSession

monitored = pytest.mark.original_api("tf.train.MonitoredSession")


@monitored
def test_hooks_are_called_around_each_step(step_op, graph):
    recorder = Recorder()
    with train.MonitoredSession(hooks=[recorder, train.StopAtStepHook(last_step=2)]) as session:
        assert session.graph is graph
        assert graph.finalized
        while not session.should_stop():
            session.run(step_op)
    assert recorder.calls == [
        f"hook {call}" for call in ("begin", "session", "step", "step", "end")
    ]
    assert not graph.finalized
    assert isinstance(session, v1.train.MonitoredSession)


@monitored
@pytest.mark.parametrize("error", [tf.errors.AbortedError, tf.errors.UnavailableError])
def test_a_lost_session_is_replaced_and_the_step_run_again(step_op, error, logdir):
    recorder = Recorder()
    creator = train.ChiefSessionCreator(checkpoint_dir=logdir)
    hooks = [recorder, FailOnce(lost(error))]
    with train.MonitoredSession(creator, hooks) as session:
        # The first step's session is lost, and with it the step.
        assert session.run(step_op) == 1
    assert len(recorder.sessions) == 2


@monitored
def test_other_errors_are_raised_and_hooks_do_not_end(step_op):
    recorder = Recorder()
    with pytest.raises(KeyError), train.MonitoredSession(hooks=[recorder]) as session:
        run_and_fail(session, step_op)
    assert recorder.calls[-1] == "hook step"
    with pytest.raises(RuntimeError, match="closed Session"):
        recorder.sessions[0].run(step_op)


@monitored
@pytest.mark.parametrize("end", [tf.errors.OutOfRangeError(None, None, "end"), StopIteration()])
def test_the_end_of_the_input_is_a_normal_end(step_op, end):
    recorder = Recorder()
    with train.MonitoredSession(hooks=[recorder]):
        raise end
    assert recorder.calls[-1] == "hook end"


@monitored
def test_a_step_function_runs_with_and_without_hooks(step_op):
    recorder = Recorder()

    def step_fn(step_context):
        assert step_context.session.run(step_op) == 1
        return step_context.run_with_hooks(step_op)

    with train.MonitoredSession(hooks=[recorder]) as session:
        assert session.run_step_fn(step_fn) == 2
        assert recorder.calls.count("hook step") == 1
        with pytest.raises(ValueError, match=r"takes \['context'\]; it has to take .*step_context"):
            session.run_step_fn(lambda context: None)


@monitored
def test_a_step_function_may_have_what_need_not_be_given(step_op):
    def scaled(step_context, scale):
        return step_context.session.run(step_op) * scale

    def second(first, step_context, *more, scale=1, **options):
        return step_context.session.run(step_op) * scale

    class Callable:
        def __call__(self, step_context, **options):
            return step_context.session.run(step_op)

    with train.MonitoredSession() as session:
        assert session.run_step_fn(functools.partial(scaled, scale=10)) == 10
        assert session.run_step_fn(functools.partial(second, None)) == 2
        assert session.run_step_fn(functools.partial(second, None, scale=10)) == 30
        assert session.run_step_fn(Callable()) == 4
        for step_fn, names in (
            (scaled, r"\['step_context', 'scale'\]"),
            (lambda step_context, *, scale: scale, r"\['step_context', 'scale'\]"),
            (lambda **options: None, r"\[\]"),
            (functools.partial(second, step_context=None), r"\['first'\]"),
        ):
            with pytest.raises(ValueError, match=f"takes {names}; it has to take one argument"):
                session.run_step_fn(step_fn)


@monitored
def test_a_step_function_may_be_a_method_and_ask_for_the_end(step_op):
    class Stepper:
        def step(self, step_context):
            step_context.request_stop()

    recorder = Recorder()
    with train.MonitoredSession(hooks=[recorder]) as session:
        session.run_step_fn(Stepper().step)
    assert recorder.calls[-1] == "hook end"


@monitored
def test_a_step_function_gets_the_session_that_replaced_a_lost_one(step_op):
    recorder, seen = Recorder(), []

    def step_fn(step_context):
        seen.append(step_context.session)
        step_context.session.run(step_op)
        return step_context.run_with_hooks(step_op)

    with train.MonitoredSession(hooks=[recorder, FailOnce(lost())]) as session:
        assert session.run_step_fn(step_fn) == 2
    assert len(recorder.sessions) == 2
    assert seen == recorder.sessions


@monitored
@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("fails", [None, "in the block", "in a hook"])
def test_a_stuck_thread_does_not_hold_up_the_end(step_op, fails):
    class FailingEnd(train.SessionRunHook):
        def end(self, session):
            raise KeyError("a bug")

    stuck_queue_runner()
    hooks = [FailingEnd()] if fails == "in a hook" else []
    began = time.monotonic()
    try:
        with train.MonitoredSession(hooks=hooks, release_secs=0.1) as session:
            session.run(step_op)
            if fails == "in the block":
                raise KeyError("a bug")
    except KeyError:
        assert fails
    # The grace period is 120 s.
    assert time.monotonic() - began < 60


@monitored
def test_a_short_grace_period_releases_threads_sooner(step_op):
    stuck_queue_runner()
    began = time.monotonic()
    with train.MonitoredSession(stop_grace_period_secs=0.2) as session:
        session.run(step_op)
    assert time.monotonic() - began < 60


@monitored
def test_a_session_that_could_not_be_made_leaves_nothing_behind(step_op, graph):
    class FailingStart(Recorder):
        def after_create_session(self, session, coord):
            super().after_create_session(session, coord)
            raise KeyError("a bug")

    hook = FailingStart()
    with pytest.raises(KeyError):
        train.MonitoredSession(hooks=[hook])
    assert not graph.finalized
    with pytest.raises(RuntimeError, match="closed Session"):
        hook.sessions[0].run(step_op)
    with train.MonitoredSession() as session:
        assert session.run(step_op) == 1


@monitored
def test_sessions_of_other_creators_work_too(step_op):
    with train.MonitoredSession(v1.train.ChiefSessionCreator()) as session:
        assert session.run(step_op) == 1


@monitored
def test_a_closed_session_cannot_be_closed_again(step_op):
    session = train.MonitoredSession()
    session.close()
    assert session.should_stop()
    with pytest.raises(RuntimeError, match="already closed"):
        session.close()


# SingularMonitoredSession

singular = pytest.mark.original_api("tf.train.SingularMonitoredSession")


@singular
def test_it_shows_its_session_and_calls_hooks(step_op):
    recorder = Recorder()
    with train.SingularMonitoredSession([recorder]) as session:
        session.run(step_op)
        assert session.raw_session() is recorder.sessions[0]
    assert recorder.calls == [f"hook {call}" for call in ("begin", "session", "step", "end")]
    assert isinstance(session, v1.train.SingularMonitoredSession)


@singular
def test_it_resumes_from_a_directory_or_a_checkpoint(step_op, tmp_path):
    logdir, scaffold = str(tmp_path), train.Scaffold()
    with train.SingularMonitoredSession(scaffold=scaffold) as session:
        session.run(step_op)
        path = scaffold.saver.save(session.raw_session(), f"{logdir}/model", global_step=1)
    for arguments in ({"checkpoint_dir": logdir}, {"checkpoint_filename_with_path": path}):
        with train.SingularMonitoredSession(scaffold=scaffold, **arguments) as session:
            assert session.run(step_op) == 2


@singular
def test_it_does_not_recover(step_op):
    with (
        pytest.raises(tf.errors.AbortedError),
        train.SingularMonitoredSession([FailOnce(lost())]) as session,
    ):
        session.run(step_op)


@singular
def test_it_ends_although_a_thread_is_stuck(step_op):
    stuck_queue_runner()
    began = time.monotonic()
    with train.SingularMonitoredSession(release_secs=0.1) as session:
        session.run(step_op)
        assert session.run_step_fn(lambda step_context: step_context.session.run(step_op)) == 2
    assert time.monotonic() - began < 60


@pytest.mark.original_api(
    "tf.train.MonitoredSession",
    "tf.train.SingularMonitoredSession",
    "tf.train.MonitoredTrainingSession",
    "tf.train.Supervisor",
)
@pytest.mark.parametrize(
    "make",
    [
        train.MonitoredSession,
        train.SingularMonitoredSession,
        train.MonitoredTrainingSession,
        train.Supervisor,
    ],
)
def test_outside_a_graph_the_error_says_what_to_do(make):
    # A new thread is outside every graph, as a program is at its start.
    with ThreadPoolExecutor() as pool:
        call = pool.submit(make)
        with pytest.raises(RuntimeError, match=r"with tf\.Graph\(\)\.as_default"):
            call.result()
