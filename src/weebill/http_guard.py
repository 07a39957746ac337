"""What every request passes before and after its endpoint: token, size and time limits, counting, headers.

No text of a request or an answer is logged, nor the message of an unexpected exception, which might quote one.
"""

import asyncio
import hmac
import logging
import time
import traceback
from collections.abc import Awaitable, Callable, Collection

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from weebill.http_types import Refusal

BODY_SECONDS = 30.0
DRAIN_BYTES = 64_000_000  # read and dropped of a body that is refused, since a client still sending reads no answer
_LOG = logging.getLogger(__name__)
_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)


class Metrics:
    """What /metrics shows, in a registry of its own."""

    def __init__(self, waiting_texts: Callable[[], int]):
        self.registry = CollectorRegistry()
        self.requests = Counter("weebill_requests", "Answered requests.", ["path", "status"], registry=self.registry)
        self.seconds = Histogram("weebill_request_seconds", "From the first byte of a request to the last of its "
                                 "answer.", ["path"], buckets=_SECONDS, registry=self.registry)  # fmt: skip
        self.batch_texts = Histogram("weebill_batch_texts", "Texts in a forward pass.",
                                     buckets=(1, 2, 4, 8, 16, 32, 64), registry=self.registry)  # fmt: skip
        self.batch_seconds = Histogram("weebill_batch_seconds", "Tokenizing, forward pass and decoding of a batch.",
                                       buckets=_SECONDS, registry=self.registry)  # fmt: skip
        waiting = Gauge("weebill_waiting_texts", "Texts accepted and not yet with the model.", registry=self.registry)
        waiting.set_function(waiting_texts)
        ProcessCollector(registry=self.registry)

    def observe_batch(self, num_texts: int, seconds: float) -> None:
        """Count one forward pass."""
        self.batch_texts.observe(num_texts)
        self.batch_seconds.observe(seconds)


class Guard:
    """ASGI middleware.

    Args:
        app: what it stands before.
        max_body_bytes: of a request, whether it says its length or not.
        token: what `Authorization: Bearer` must carry, or None for no such check.
        open_paths: paths that need no token.
        known_paths: paths that are counted by name.
        metrics: where requests are counted.
    """

    def __init__(
        self,
        app: ASGIApp,
        max_body_bytes: int,
        token: str | None,
        open_paths: Collection[str],
        known_paths: Collection[str],
        metrics: Metrics,
    ):
        self.app, self.max_body_bytes, self.metrics = app, max_body_bytes, metrics
        self.token, self.open_paths, self.known_paths = token, open_paths, known_paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started, status, ended, left = time.perf_counter(), 0, False, False
        answering = asyncio.current_task()

        async def answer(message: Message) -> None:
            nonlocal status, ended
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), (b"x-content-type-options", b"nosniff")]
            ended = message["type"] == "http.response.body" and not message.get("more_body", False)
            await send(message)

        async def watch() -> Message:
            nonlocal left
            message = await receive()  # after the body nothing comes but that the client has left
            if not ended and answering is not None:
                left = answering.cancel()  # its texts give up their place in the queue
            return message

        try:
            body = await self._admit(scope, receive)
            gone = asyncio.create_task(watch())
            try:
                await self.app(scope, _replay(body, gone), answer)
            finally:
                gone.cancel()
        except asyncio.CancelledError:
            if left and answering is not None and not answering.uncancel():
                return
            raise
        except _ClientGone:
            return
        except Refusal as refusal:
            await refuse(scope["path"], refusal, close=True)(scope, receive, answer)
        except Exception as error:  # noqa: BLE001  the last border: the message is the log's and the caller's loss
            frames = "".join(traceback.format_tb(error.__traceback__))
            _LOG.error("%s on %s %s\n%s", type(error).__name__, scope["method"], scope["path"], frames)
            if not status:
                message = f"expected to answer, got {type(error).__name__}; the server's log has where"
                await refuse(scope["path"], Refusal("Internal", message))(scope, receive, answer)
        path = scope["path"] if scope["path"] in self.known_paths else "other"
        self.metrics.requests.labels(path, str(status)).inc()
        self.metrics.seconds.labels(path).observe(time.perf_counter() - started)

    async def _admit(self, scope: Scope, receive: Receive) -> bytes:
        """Return the whole body of a request that may be answered."""
        allowed = self._has_token(scope)
        limit = self.max_body_bytes if allowed else 0
        try:
            async with asyncio.timeout(BODY_SECONDS):
                body, size = await _read_body(receive, limit)
        except TimeoutError as error:
            raise Refusal("Timeout", f"expected the whole body within {BODY_SECONDS:g} s, got a part of it; "
                                     f"send it faster") from error  # fmt: skip
        if not allowed:
            raise Refusal("Unauthorized", "expected the server's token, got none or another one; send it as "
                          "Authorization: Bearer TOKEN", {"WWW-Authenticate": "Bearer"})  # fmt: skip
        if size > limit:
            raise Refusal("TooLarge", f"expected a body of at most {limit} bytes, got more; send fewer texts a "
                                      f"request")  # fmt: skip
        return body

    def _has_token(self, scope: Scope) -> bool:
        if self.token is None or scope["path"] in self.open_paths:
            return True
        given = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        scheme, _, credential = given.partition(b" ")
        return scheme.lower() == b"bearer" and hmac.compare_digest(credential.strip(), self.token.encode())


class _ClientGone(Exception):
    """The client closed the connection before its request was whole."""


async def _read_body(receive: Receive, limit: int) -> tuple[bytes, int]:
    """Return a body and its size; beyond `limit` bytes it is counted and dropped."""
    parts: list[bytes] = []
    size, more = 0, True
    while more and size <= limit + DRAIN_BYTES:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _ClientGone
        part = message.get("body", b"")
        size += len(part)
        if size <= limit:
            parts.append(part)
        else:
            parts.clear()
        more = message.get("more_body", False)
    return b"".join(parts), size


def _replay(body: bytes, gone: Awaitable[Message]) -> Receive:
    """Return a `receive` that gives the body once and then waits for what comes after it."""
    messages = iter([{"type": "http.request", "body": body, "more_body": False}])

    async def replayed() -> Message:
        return next(messages, None) or await gone

    return replayed


def refuse(path: str, refusal: Refusal, close: bool = False) -> JSONResponse:
    """Return the response to a request that is refused; `close`: its body may not have been read."""
    headers = dict(refusal.headers or {}) | ({"Connection": "close"} if close else {})
    return JSONResponse(refusal.to_json(path), refusal.status, headers)
