"""The rights of calls, and refusals with a remedy."""

import asyncio
import importlib
import pkgutil
import threading

import grpc
import pytest
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from paramserve import protos
from paramserve.chief.services.guard import MAX_REFUSALS, Guard, RefusalLimit
from paramserve.chief.services.rights import RIGHTS, right_for
from paramserve.cluster.access import Access
from paramserve.cluster.token import Right, Token

WHOLE = "/paramserve.Status/GetStatus"
STREAM = "/paramserve.Status/WatchStatus"
STOP = "/paramserve.Status/Stop"
REGISTER = "/paramserve.Membership/Register"
HEALTH = "/grpc.health.v1.Health/Check"


def methods_of(*modules):
    """The calls of the services that some generated modules define."""
    return {
        f"/{service.full_name}/{method.name}"
        for module in modules
        for service in module.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    }


def test_every_call_has_its_right():
    """A new call fails here, until its right is decided."""
    names = [each.name for each in pkgutil.iter_modules(protos.__path__)]
    own = [
        importlib.import_module(f"paramserve.protos.{name}")
        for name in names
        if name.endswith("_pb2")
    ]
    assert len(methods_of(*own)) > 10
    assert set(RIGHTS) == methods_of(*own, reflection_pb2)
    assert {right_for(method) for method in methods_of(health_pb2)} == {None}
    assert right_for("/paramserve.Status/Unheard") is Right.CONTROL


@pytest.fixture
def secret():
    return Token.new()


class Server:
    """A server of calls that answer with nothing, behind a guard."""

    def __init__(self, secret):
        self.refused = []
        self._guard = Guard(secret, self.refused.append)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.address = f"127.0.0.1:{self._do(self._start())}"

    def stop(self):
        self._do(self._server.stop(None))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def _do(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(20)

    async def _start(self):
        self._server = grpc.aio.server(interceptors=[self._guard])
        for path in (WHOLE, STREAM, STOP, REGISTER, HEALTH):
            _, service, method = path.split("/")
            kind = grpc.unary_unary_rpc_method_handler(self._answer)
            if path == STREAM:
                kind = grpc.unary_stream_rpc_method_handler(self._answer_twice)
            handler = grpc.method_handlers_generic_handler(service, {method: kind})
            self._server.add_generic_rpc_handlers((handler,))
        port = self._server.add_insecure_port("127.0.0.1:0")
        await self._server.start()
        return port

    async def _answer(self, request, context):
        return b"answer"

    async def _answer_twice(self, request, context):
        yield b"answer"
        yield b"answer"


@pytest.fixture
def server(secret):
    server = Server(secret)
    yield server
    server.stop()


def call(server, method, token=None, right=Right.READ):
    """Returns the answer to a call, or the status of its refusal."""
    with Access(token).open_channel(server.address, right) as channel:
        try:
            if method == STREAM:
                return list(channel.unary_stream(method)(b"", timeout=20))
            return channel.unary_unary(method)(b"", timeout=20)
        except grpc.RpcError as error:
            return error.code().name, error.details()


def test_the_secret_of_a_job_opens_everything(server, secret):
    assert call(server, WHOLE, secret) == b"answer"
    assert call(server, STREAM, secret) == [b"answer"] * 2
    assert call(server, STOP, secret, Right.CONTROL) == b"answer"
    assert call(server, REGISTER, secret, Right.MEMBER) == b"answer"
    assert server.refused == []


def test_health_is_open_to_all(server):
    assert call(server, HEALTH) == b"answer"
    assert call(server, HEALTH, Token.new()) == b"answer"


@pytest.mark.parametrize("method", [WHOLE, STREAM, STOP, REGISTER])
def test_a_call_without_a_token_says_how_to_give_one(server, method):
    code, details = call(server, method)
    assert code == "UNAUTHENTICATED"
    assert "needs a token: give --token-file LOGDIR/tokens/job of the job, or set" in details
    assert server.refused == ["no token"]


def test_a_token_of_another_job_is_refused(server):
    for method, right in ((REGISTER, Right.MEMBER), (STREAM, Right.READ)):
        code, details = call(server, method, Token.new(), right)
        assert (code, "of another job" in details) == ("UNAUTHENTICATED", True)
    assert server.refused == ["wrong token"] * 2


@pytest.mark.parametrize(
    ("held", "refused", "needed"),
    [
        (Right.READ, STOP, Right.CONTROL),
        (Right.READ, REGISTER, Right.MEMBER),
        (Right.MEMBER, STOP, Right.CONTROL),
        (Right.CONTROL, REGISTER, Right.MEMBER),
    ],
)
def test_a_token_with_another_right_reads_and_no_more(server, secret, held, refused, needed):
    token = Token(secret.for_right(held), held)
    assert call(server, WHOLE, token) == b"answer"
    code, details = call(server, refused, token, held)
    assert code == "PERMISSION_DENIED"
    assert f"the token is one to {held}" in details
    assert f"give the job's {needed} token" in details
    assert server.refused == ["other right"]


def test_refusals_at_rate_are_short_and_keep_nobody_else_waiting(server, secret):
    codes = [call(server, STOP, Token.new(), Right.CONTROL)[0] for _ in range(4 * MAX_REFUSALS)]
    assert set(codes) == {"UNAUTHENTICATED", "RESOURCE_EXHAUSTED"}
    assert server.refused.count("too many") == codes.count("RESOURCE_EXHAUSTED")
    assert call(server, STOP, secret, Right.CONTROL) == b"answer"


def test_refusals_are_counted_by_caller_and_second():
    now = [0.0]
    limit = RefusalLimit(lambda: now[0])
    assert [limit.is_exceeded("a") for _ in range(MAX_REFUSALS + 1)][-2:] == [False, True]
    assert not limit.is_exceeded("b")
    now[0] = 1.0
    assert not limit.is_exceeded("a")
    for number in range(5000):
        limit.is_exceeded(f"caller {number}")
    assert len(limit._seconds) == 1024
