"""A worker's report of its current activity."""

from paramserve.protos import membership_pb2 as pb
from paramserve.worker.activity import Activity, ActivityHook


def test_it_says_what_it_is_at_since_when_and_in_which_session():
    now = [10.0]
    activity = Activity(clock=lambda: now[0])
    now[0] = 12.0
    said = activity.add_to(pb.WorkerReport(local_steps=3))
    assert (said.local_steps, said.doing, said.sessions) == (3, pb.WorkerReport.UNKNOWN, 0)
    assert said.doing_secs == 2.0
    activity.open_session()
    now[0] = 12.5
    said = activity.add_to(pb.WorkerReport())
    assert (said.doing, said.doing_secs, said.sessions) == (pb.WorkerReport.OPENING, 0.5, 1)


def test_hooks_note_what_comes_after_them():
    activity = Activity()
    first = ActivityHook(activity, pb.WorkerReport.SLOWER, pb.WorkerReport.BETWEEN)
    last = ActivityHook(activity, pb.WorkerReport.STEP)
    seen = []
    for call in (first.before_run, last.before_run):
        call(None)
        seen.append(activity.add_to(pb.WorkerReport()).doing)
    for call in (first.after_run, last.after_run):
        call(None, None)
        seen.append(activity.add_to(pb.WorkerReport()).doing)
    doing = pb.WorkerReport
    assert seen == [doing.SLOWER, doing.STEP, doing.BETWEEN, doing.BETWEEN]
