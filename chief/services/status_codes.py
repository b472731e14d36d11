"""The one place where exceptions become gRPC statuses."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any, TypeVar

import grpc
import tensorflow as tf

from ...errors import ParamserveError, UsageError
from ...reasons import reason_of
from ..input.ledger import NoDataset
from ..membership.places import TaskHeld
from ..membership.registry import JobClosed, UnknownTask
from ..state import NotTraining
from .limits import TooMuch

log = logging.getLogger(__name__)

Method = TypeVar("Method", bound=Callable[..., Any])

STATUS_CODES: tuple[tuple[type[Exception], grpc.StatusCode], ...] = (
    (TaskHeld, grpc.StatusCode.ALREADY_EXISTS),
    (TooMuch, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (JobClosed, grpc.StatusCode.FAILED_PRECONDITION),
    (NotTraining, grpc.StatusCode.FAILED_PRECONDITION),
    (NoDataset, grpc.StatusCode.FAILED_PRECONDITION),
    (UnknownTask, grpc.StatusCode.NOT_FOUND),
    (UsageError, grpc.StatusCode.INVALID_ARGUMENT),
    (ValueError, grpc.StatusCode.INVALID_ARGUMENT),
    (ParamserveError, grpc.StatusCode.ABORTED),
    (tf.errors.OpError, grpc.StatusCode.ABORTED),
)


def status_code(error: Exception) -> grpc.StatusCode:
    """Returns the status that a caller gets for an exception of ours; INTERNAL for any other."""
    matches = (code for kind, code in STATUS_CODES if isinstance(error, kind))
    return next(matches, grpc.StatusCode.INTERNAL)


def with_status_codes(method: Method) -> Method:
    """Makes a servicer's coroutine answer exceptions with their status."""

    @functools.wraps(method)
    async def answer(self: Any, request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        try:
            return await method(self, request, context)
        except Exception as error:
            code = status_code(error)
            if code is grpc.StatusCode.INTERNAL:
                log.exception("%s failed", method.__name__)
            await context.abort(code, reason_of(error))

    return answer  # type: ignore[return-value]
