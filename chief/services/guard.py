"""`Guard`: turns away calls without a token that has the right to them."""

from __future__ import annotations

import enum
import logging
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Any

import grpc

from ...cluster.access import sent_token
from ...cluster.token import TOKEN_VARIABLE, Right, Token, allows, describe
from .rights import right_for

log = logging.getLogger(__name__)

# Refusals a second and caller that come with a reason; it may be a mistake in a script.
MAX_REFUSALS = 10
# Callers whose refusals are counted; the caller with the oldest refusal is forgotten first.
_MAX_CALLERS = 1024
_LOG_SECS = 10.0
_HOW = f"give --token-file LOGDIR/tokens/job of the job, or set {TOKEN_VARIABLE}"


class Refusal(enum.StrEnum):
    """Why a call was turned away."""

    NO_TOKEN = "no token"
    WRONG_TOKEN = "wrong token"
    OTHER_RIGHT = "other right"
    TOO_MANY = "too many"


class RefusalLimit:
    """Counts refused calls a second and caller, of a bounded number of callers.

    Args:
        clock: In seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seconds: OrderedDict[str, tuple[int, int]] = OrderedDict()

    def is_exceeded(self, caller: str) -> bool:
        """Counts a refused call, and returns whether there are too many in this second."""
        second = int(self._clock())
        former, count = self._seconds.pop(caller, (second, 0))
        count = count + 1 if former == second else 1
        self._seconds[caller] = (second, count)
        if len(self._seconds) > _MAX_CALLERS:
            self._seconds.popitem(last=False)
        return count > MAX_REFUSALS


class Guard(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]  # So only in the stubs.
    """Turns away calls without a token that has the right to them.

    Args:
        token: The secret of the job; it recognizes its tokens.
        on_refused: Called in the event loop with the reason of each refusal.
        limit: Counts refusals.
    """

    def __init__(
        self,
        token: Token,
        on_refused: Callable[[Refusal], None] = lambda _: None,
        limit: RefusalLimit | None = None,
    ) -> None:
        self._token = token
        self._on_refused = on_refused
        self._limit = limit or RefusalLimit()
        self._logged = -_LOG_SECS

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """Passes a call on to its servicer, or to a handler that refuses it."""
        needed = right_for(handler_call_details.method)
        if needed is None:
            return await continuation(handler_call_details)
        metadata = handler_call_details.invocation_metadata
        sent = sent_token(next((text for key, text in metadata if key == "authorization"), None))
        held = self._token.right_of(sent) if sent else None
        if held is not None and allows(held, needed):
            return await continuation(handler_call_details)
        return self._refusal(handler_call_details.method, bool(sent), held, needed)

    def _refusal(self, method: str, has_sent: bool, held: Right | None, needed: Right) -> Any:
        code, reason = grpc.StatusCode.UNAUTHENTICATED, Refusal.WRONG_TOKEN
        text = f"the token is of another job, or of an earlier run of this one: {_HOW}"
        if held is not None:
            code, reason = grpc.StatusCode.PERMISSION_DENIED, Refusal.OTHER_RIGHT
            text = (
                f"the token is one to {held}, and {describe(needed)} needs one to {needed}: "
                f"give the job's {needed} token or its secret, LOGDIR/tokens/job"
            )
        elif not has_sent:
            reason = Refusal.NO_TOKEN
            text = f"{describe(needed)} needs a token: {_HOW}"

        async def refuse(_: Any, context: grpc.aio.ServicerContext[Any, Any]) -> None:
            await self._refuse(context, method, code, reason, text)

        # Of streams, whatever the call is: such a handler does not wait for a request.
        return grpc.stream_stream_rpc_method_handler(refuse)

    async def _refuse(
        self,
        context: grpc.aio.ServicerContext[Any, Any],
        method: str,
        code: grpc.StatusCode,
        reason: Refusal,
        text: str,
    ) -> None:
        caller = context.peer().rpartition(":")[0]
        if self._limit.is_exceeded(caller):
            code, reason = grpc.StatusCode.RESOURCE_EXHAUSTED, Refusal.TOO_MANY
            text = f"more than {MAX_REFUSALS} refused calls in a second: {_HOW}"
        self._on_refused(reason)
        now = time.monotonic()
        if now - self._logged > _LOG_SECS:
            self._logged = now
            log.warning("%s from %s was refused (%s)", method, caller, reason)
        await context.abort(code, text)
