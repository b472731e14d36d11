"""The table from exceptions to gRPC statuses is total."""

import asyncio
import inspect

import grpc
import pytest
import tensorflow as tf

from paramserve import errors
from paramserve.chief import state as job_state
from paramserve.chief.membership import places, registry
from paramserve.chief.services import limits
from paramserve.chief.services.status_codes import STATUS_CODES, status_code, with_status_codes


def exceptions_of(*modules):
    """The exception classes that these modules define themselves."""
    return [
        kind
        for module in modules
        for _, kind in inspect.getmembers(module, inspect.isclass)
        if issubclass(kind, Exception) and kind.__module__ == module.__name__
    ]


# No call can bring it about: it is a mistake of the chief's own.
OWN_MISTAKES = (job_state.IllegalTransition,)
RAISED = [
    kind
    for kind in exceptions_of(places, registry, job_state, limits, errors)
    if kind not in OWN_MISTAKES
]


def test_there_is_something_to_prove():
    names = {kind.__name__ for kind in RAISED}
    assert {"TaskHeld", "JobClosed", "UnknownTask", "NotTraining", "JobFailed"} <= names


@pytest.mark.parametrize("kind", RAISED, ids=lambda kind: kind.__name__)
def test_every_exception_of_ours_has_a_status_that_tells_something(kind):
    code = status_code(kind("tasks", "why") if kind is limits.TooMuch else kind("why"))
    assert code not in (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.OK)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (places.TaskHeld("held"), grpc.StatusCode.ALREADY_EXISTS),
        (registry.JobClosed("closed"), grpc.StatusCode.FAILED_PRECONDITION),
        (registry.UnknownTask("unknown"), grpc.StatusCode.NOT_FOUND),
        (job_state.NotTraining("no model"), grpc.StatusCode.FAILED_PRECONDITION),
        (errors.UsageError("index -1"), grpc.StatusCode.INVALID_ARGUMENT),
        (ValueError("unknown role"), grpc.StatusCode.INVALID_ARGUMENT),
        (errors.JobFailed("disk full"), grpc.StatusCode.ABORTED),
        (tf.errors.UnavailableError(None, None, "ps is gone"), grpc.StatusCode.ABORTED),
        (KeyError("a bug"), grpc.StatusCode.INTERNAL),
        (RuntimeError("a bug"), grpc.StatusCode.INTERNAL),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else value.name,
)
def test_callers_can_tell_what_happened(error, code):
    """These codes are promised in the .proto files, and clients act on them."""
    assert status_code(error) is code


def test_no_line_of_the_table_is_shadowed_by_one_above_it():
    kinds = [kind for kind, _ in STATUS_CODES]
    shadowed = [k for i, k in enumerate(kinds) if any(issubclass(k, above) for above in kinds[:i])]
    assert shadowed == []


class Aborted(Exception):
    """The exception that gRPC's own context raises from `abort`."""


class Context:
    async def abort(self, code, details):
        raise Aborted(code, details)


class Servicer:
    def __init__(self, error=None):
        self._error = error

    @with_status_codes
    async def Call(self, request, context):
        if self._error is not None:
            raise self._error
        return request * 2


def test_a_method_that_raises_nothing_answers_as_it_would():
    assert asyncio.run(Servicer().Call(21, Context())) == 42


def test_the_message_reaches_the_caller():
    with pytest.raises(Aborted) as caught:
        asyncio.run(Servicer(places.TaskHeld("ps:0 is held by a:1")).Call(1, Context()))
    assert caught.value.args == (grpc.StatusCode.ALREADY_EXISTS, "ps:0 is held by a:1")


def test_an_exception_without_a_message_is_named_and_a_bug_is_logged(caplog):
    with pytest.raises(Aborted) as caught:
        asyncio.run(Servicer(RuntimeError()).Call(1, Context()))
    assert caught.value.args == (grpc.StatusCode.INTERNAL, "RuntimeError")
    assert "Call failed" in caplog.text
    assert "Traceback" in caplog.text
