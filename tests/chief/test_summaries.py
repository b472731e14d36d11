"""What TensorBoard reads: the job's own scalars, the model's summaries, evaluations."""

import pytest
import tensorflow as tf

from paramserve.chief.progress import Snapshot
from paramserve.chief.summaries import SummaryService

v1 = tf.compat.v1


@pytest.fixture
def open_service(tmp_path):
    """Opens a service on the log directory; closes it when the test is over."""
    services = []

    def open_service(every_steps=10):
        graph = tf.Graph()
        with graph.as_default():
            v1.placeholder(tf.float32, name="the_models_input")
        services.append(SummaryService(str(tmp_path), graph, every_steps))
        return services[-1]

    yield open_service
    for service in services:
        service.close()


@pytest.fixture
def read_events(tmp_path):
    """The events of every file in the log directory, in order."""

    def read():
        files = sorted(tmp_path.glob("events.out.tfevents.*"))
        return [event for file in files for event in v1.train.summary_iterator(str(file))]

    return read


def scalars(events):
    """`{tag: {step: value}}`."""
    found = {}
    for event in events:
        for value in event.summary.value:
            found.setdefault(value.tag, {})[event.step] = round(value.simple_value, 5)
    return found


def snapshot(step, **more):
    return Snapshot(
        **{
            "global_step": step,
            "examples": 10 * step,
            "steps_per_second": 4.0,
            "examples_per_second": 40.0,
            "loss": 1.0 / (step + 1),
            **more,
        }
    )


def test_loss_and_speed_can_be_read_back(open_service, read_events):
    service = open_service(every_steps=10)
    service.write_progress(snapshot(1, metrics={"accuracy": 0.5}))
    service.write_progress(snapshot(11, metrics={"accuracy": 0.75}))
    service.flush()
    assert scalars(read_events()) == {
        "loss": {1: 0.5, 11: round(1 / 12, 5)},
        "global_step/sec": {1: 4.0, 11: 4.0},
        "examples/sec": {1: 40.0, 11: 40.0},
        "metrics/accuracy": {1: 0.5, 11: 0.75},
    }


def test_scalars_are_written_every_so_many_steps(open_service, read_events):
    service = open_service(every_steps=10)
    for step in [0, 3, 9, 10, 12, 19, 25, 25, 34, 35]:
        service.write_progress(snapshot(step))
    service.flush()
    assert list(scalars(read_events())["loss"]) == [0, 10, 25, 35]


def test_the_last_step_is_written_even_if_it_is_not_due_but_not_twice(open_service, read_events):
    service = open_service(every_steps=10)
    service.write_progress(snapshot(10))
    service.write_progress(snapshot(13), force=True)
    service.write_progress(snapshot(13), force=True)
    service.flush()
    assert [e.step for e in read_events() if e.summary.value] == [10, 13]


def test_before_the_first_loss_there_is_nothing_to_write(open_service, read_events):
    service = open_service(every_steps=1)
    service.write_progress(snapshot(5, loss=None))
    service.flush()
    assert scalars(read_events()) == {}


def test_a_job_may_ask_for_no_scalars(open_service, read_events):
    service = open_service(every_steps=0)
    service.write_progress(snapshot(10), force=True)
    service.flush()
    assert scalars(read_events()) == {}


def test_a_models_own_summaries_keep_their_names(open_service, read_events):
    service = open_service()
    summary = v1.Summary(value=[v1.Summary.Value(tag="mine/margin", simple_value=2.5)])
    service.write_model_summary(summary.SerializeToString(), 42)
    service.flush()
    assert scalars(read_events()) == {"mine/margin": {42: 2.5}}


def test_evaluations_have_a_place_of_their_own(open_service, read_events):
    service = open_service()
    service.write_evaluation({"accuracy": 0.875, "auc": 0.5}, 100)
    service.flush()
    assert scalars(read_events()) == {"eval/accuracy": {100: 0.875}, "eval/auc": {100: 0.5}}


def test_a_run_that_goes_on_from_a_checkpoint_marks_its_start(open_service, read_events):
    """TensorBoard then drops what an earlier life of the model wrote beyond that step."""
    service = open_service(every_steps=1)
    service.start_session(40)
    service.write_progress(snapshot(41))
    service.flush()
    marks = [(event.step, event.session_log.status) for event in read_events()]
    assert marks.index((40, v1.SessionLog.START)) < marks.index((41, 0))


def test_the_models_graph_is_shown(open_service, read_events):
    open_service().flush()
    graphs = [event.graph_def for event in read_events() if event.graph_def]
    assert b"the_models_input" in graphs[0]
