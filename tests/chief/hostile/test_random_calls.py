"""Random bytes and messages to every method: each call is answered, and nothing else is harmed."""

import grpc
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from paramserve.protos import membership_pb2, shards_pb2, status_pb2
from support.messages import messages

SERVICES = (
    membership_pb2.DESCRIPTOR.services_by_name["Membership"],
    shards_pb2.DESCRIPTOR.services_by_name["Shards"],
    status_pb2.DESCRIPTOR.services_by_name["Status"],
)
METHODS = [method for service in SERVICES for method in service.methods]
# A call that waits for something is given up after so long.
CALL_SECS = 0.3
KNOWN = ("ps", "worker", "chief", "life-1", "life-2", "host:2222", '{"patterns": ["*.csv"]}')
MAX_GROWTH_BYTES = 200 << 20
# What the answer to a message of the right form may never be.
BROKEN = (grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL, grpc.StatusCode.UNAVAILABLE)

RANDOM = settings(
    max_examples=20,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
LONG = settings(RANDOM, max_examples=3000)

any_bytes = st.tuples(st.sampled_from(METHODS), st.lists(st.binary(max_size=200), min_size=1))
any_message = st.sampled_from(METHODS).flatmap(
    lambda method: st.tuples(
        st.just(method),
        st.lists(
            messages(method.input_type, KNOWN).map(lambda each: each.SerializeToString()),
            min_size=1,
            max_size=4,
        ),
    )
)


@pytest.fixture
def channel(plane):
    with grpc.insecure_channel(plane.address) as channel:
        yield channel


def call(channel, method, requests):
    """Begins a call with raw requests; returns what gives its status."""
    path = f"/{method.containing_service.full_name}/{method.name}"
    return channel.stream_stream(path)(iter(requests), timeout=CALL_SECS)


def code_of(answers):
    try:
        for _ in answers:
            pass
    except grpc.RpcError as error:
        return error.code()
    return grpc.StatusCode.OK


def check_random(plane, bystander, channel, calls, broken):
    before = plane.memory_bytes()
    begun = [(method, call(channel, method, requests)) for method, requests in calls]
    codes = [(method.name, code_of(answers)) for method, answers in begun]
    assert not [each for each in codes if each[1] in broken], calls
    bystander.check()
    assert plane.memory_bytes() < before + MAX_GROWTH_BYTES


@RANDOM
@given(calls=st.lists(any_bytes, min_size=1, max_size=8))
def test_random_bytes(plane, bystander, channel, calls):
    check_random(plane, bystander, channel, calls, [grpc.StatusCode.UNAVAILABLE])


@RANDOM
@given(calls=st.lists(any_message, min_size=1, max_size=8))
def test_random_messages(plane, bystander, channel, calls):
    check_random(plane, bystander, channel, calls, BROKEN)


@pytest.mark.faults
@LONG
@given(calls=st.lists(any_bytes | any_message, min_size=1, max_size=30))
def test_many_random_calls(plane, bystander, channel, calls):
    check_random(plane, bystander, channel, calls, [grpc.StatusCode.UNAVAILABLE])
