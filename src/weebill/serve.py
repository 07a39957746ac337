"""weebill serve: HTTP over one Predictor, and the playground page. Reads no text itself and decides no label.

POST /model/parse   Rasa's shape                GET /health   is it up
POST /embed         text-embeddings-inference   GET /info     model, labels, limits
POST /v1/embeddings OpenAI's shape              GET /metrics  Prometheus
POST /inspect       all the playground shows    GET / and /docs, /openapi.json
"""

import base64
import logging
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import Any

import numpy as np
from pydantic_core import to_json
from rich.console import Console

from weebill import __version__, http_types
from weebill.batching import Batcher, Overloaded, Reading
from weebill.errors import ConfigError, MissingExtraError
from weebill.geometry import unit_rows
from weebill.http_types import EmbedRequest, OpenAIRequest, ParseRequest, Refusal
from weebill.limits import Limits
from weebill.neighbours import Neighbours
from weebill.offsets import utf16_positions
from weebill.pages import content_security_policy, describe, read_page
from weebill.predictor import Predictor
from weebill.schema import Prediction

try:
    import uvicorn
    from fastapi import Depends, FastAPI, Request, Response
    from fastapi.exceptions import RequestValidationError
    from fastapi.responses import HTMLResponse
    from fastapi.security import HTTPBearer
    from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
    from starlette.exceptions import HTTPException

    from weebill.http_guard import Guard, Metrics, refuse
except ImportError as error:
    raise MissingExtraError(error.name or "fastapi", "serve", "weebill serve") from error

RANKING_LENGTH = 10  # as Rasa's
NUM_NEIGHBOURS = 5
STOP_SECONDS = 30  # for requests that are being answered when the server is told to stop
DEFAULT_LIMITS = Limits()
OPEN_PATHS = frozenset({"/", "/docs", "/openapi.json", "/health"})


class Service:
    """The endpoints of one model: a request in, the texts' readings turned into its shape out."""

    def __init__(self, predictor: Predictor, name: str, limits: Limits, examples: Neighbours | None):
        self.predictor, self.name, self.limits, self.examples = predictor, name, limits, examples
        self.metrics = Metrics(lambda: self.batcher.waiting_texts)
        self.batcher = Batcher(predictor, limits.max_waiting_texts, self.metrics.observe_batch)

    async def parse(self, request: ParseRequest) -> Response:
        """Read intent and entities of one text (Rasa's shape)."""
        reading = (await self._read([request.text], request.truncate, labels=True))[0]
        return _json(_parsed(reading, self.predictor.intents, request.offsets == "utf16"))

    async def embed(self, request: EmbedRequest) -> Response:
        """Turn texts into vectors (the shape of text-embeddings-inference): one list of numbers a text."""
        readings = await self._read(request.inputs, request.truncate)
        return _json(_vectors(readings, request.normalize).tolist())

    async def openai_embeddings(self, request: OpenAIRequest) -> Response:
        """Turn texts into vectors of length 1 (OpenAI's shape)."""
        readings = await self._read(request.input, request.truncate)
        vectors_ND = _vectors(readings, normalize=True)
        if request.encoding_format == "base64":
            rows: list[Any] = [base64.b64encode(v.astype("<f4").tobytes()).decode() for v in vectors_ND]
        else:
            rows = vectors_ND.tolist()
        tokens = sum(len(r.encoding.token_ids) for r in readings)
        data = [{"object": "embedding", "index": i, "embedding": row} for i, row in enumerate(rows)]
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        return _json({"object": "list", "data": data, "model": self.name, "usage": usage})

    async def inspect(self, request: ParseRequest) -> Response:
        """Read one text and show the work: intent, entities, tokens, nearest examples, time with the model."""
        started = time.perf_counter()
        reading = (await self._read([request.text], request.truncate, labels=True))[0]
        elapsed = time.perf_counter() - started
        utf16 = request.offsets == "utf16"
        names = {token_id: name for name, token_id in self.predictor.tokenizer.special_tokens.items()}
        at = utf16_positions(request.text) if utf16 else range(len(request.text) + 1)
        encoding = reading.encoding
        tokens = [
            {"id": token_id, "start": at[start], "end": at[end], "special": names.get(token_id)}
            for token_id, (start, end) in zip(encoding.token_ids, encoding.offsets, strict=True)
        ]
        near = self.examples.nearest(reading.embedding_D, NUM_NEIGHBOURS) if self.examples else []
        return _json(
            {
                "parse": _parsed(reading, self.predictor.intents, utf16) if reading.prediction else None,
                "tokens": tokens,
                "dropped_tokens": encoding.dropped_tokens,
                "neighbours": [{"text": u.text, "intent": u.intent, "similarity": round(s, 4)} for u, s in near],
                "time_ms": round(1000 * elapsed, 2),
            }
        )

    async def health(self) -> Response:
        """Say that the server is up; needs no token."""
        return _json({"status": "ok"})

    async def info(self) -> Response:
        """Describe the model and what the server accepts."""
        about = describe(self.predictor, self.name, self.examples)
        return _json(about | {"on_overflow": self.predictor.on_overflow, "limits": asdict(self.limits)})

    async def show_metrics(self) -> Response:
        """Counters, times and sizes for Prometheus."""
        return Response(generate_latest(self.metrics.registry), media_type=CONTENT_TYPE_LATEST)

    async def _read(self, texts: Sequence[str], truncate: bool, labels: bool = False) -> list[Reading]:
        """Return readings of texts that are within the limits.

        Raises:
            Refusal: too many or too long texts, too much waits.
        """
        limits, max_tokens = self.limits, self.predictor.max_seq_len
        overflow = self.predictor.on_overflow
        most = min(limits.max_texts, limits.max_waiting_texts)  # of more, trying again would not help
        if len(texts) > most:
            raise Refusal("TooLarge", f"expected at most {most} texts a request, got {len(texts)}; send them in "
                                      f"several")  # fmt: skip
        longest = max(map(len, texts))
        if longest > limits.max_text_chars:
            raise Refusal("TooLarge", f"expected texts of at most {limits.max_text_chars} characters, got one of "
                                      f"{longest}; split it")  # fmt: skip
        try:
            readings = await self.batcher.read(
                texts, labels, "truncate" if truncate or overflow != "window" else "window"
            )
        except Overloaded as error:
            raise Refusal("Overloaded", str(error), {"Retry-After": "1"}) from error
        dropped = max(r.encoding.dropped_tokens for r in readings)
        if dropped and overflow == "error" and not truncate:
            raise Refusal("TooLarge", f"expected texts of at most {max_tokens} tokens, got one of "
                                      f"{max_tokens + dropped}; split it, or have its beginning read: "
                                      f'"truncate": true')  # fmt: skip
        return readings


def _vectors(readings: Sequence[Reading], normalize: bool) -> Any:
    vectors_ND = np.stack([r.embedding_D for r in readings])
    return unit_rows(vectors_ND) if normalize else vectors_ND


def _parsed(reading: Reading, intents: Sequence[str], utf16: bool) -> dict[str, Any]:
    """Return Rasa's answer."""
    prediction, scores_C = reading.prediction, reading.intent_scores_C
    assert prediction is not None and scores_C is not None
    ranking = [
        {"name": intents[i], "confidence": round(float(scores_C[i]), 6)}
        for i in np.argsort(-scores_C, kind="stable")[:RANKING_LENGTH]
    ]
    if prediction.intent != ranking[0]["name"]:  # out of scope, or several
        ranking.insert(0, {"name": prediction.intent, "confidence": round(prediction.score, 6)})
    return {
        "text": prediction.text,
        "intent": ranking[0],
        "entities": _entities(prediction, utf16),
        "intent_ranking": ranking,
        "dropped_tokens": reading.encoding.dropped_tokens,
    }


def _entities(prediction: Prediction, utf16: bool) -> list[dict[str, Any]]:
    text = prediction.text
    at = utf16_positions(text) if utf16 else range(len(text) + 1)
    return [
        {"start": at[e.start], "end": at[e.end], "value": text[e.start : e.end], "entity": e.label,
         "confidence_entity": round(e.score, 6)}
        for e in prediction.entities
    ]  # fmt: skip


def _json(value: object) -> Response:
    return Response(to_json(value), media_type="application/json")


def create_app(
    predictor: Predictor,
    name: str = "weebill",
    token: str | None = None,
    examples: Neighbours | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> FastAPI:
    """Return the ASGI application of one model; any ASGI server runs it, in one process.

    Args:
        predictor: from `weebill.load`, with its `on_overflow`; without heads there is no /model/parse.
        name: of the model, in answers.
        token: bearer token that callers must send, without white space around it; None lets everyone in.
        examples: utterances that the playground finds neighbours in.
        limits: what is refused.

    Raises:
        ConfigError: an empty token.
    """
    if token is not None and not (token := token.strip()):  # a secret's file often ends in a newline
        raise ConfigError("token: expected one, got an empty one; give one, or none to let everyone in")
    service = Service(predictor, name, limits, examples)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        service.batcher.close()

    app = FastAPI(
        title=f"weebill: {name}", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None,
        description="Intent, entities and embeddings of short texts.",
    )  # fmt: skip
    _add_endpoints(app, service, needs_token=token is not None)
    _add_page(app, "/", "playground.html")
    _add_page(app, "/docs", "endpoints.html")
    app.add_exception_handler(Refusal, _on_refusal)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, _on_http_error)
    known = frozenset(path for route in app.routes if (path := getattr(route, "path", None)))
    app.add_middleware(
        Guard, max_body_bytes=limits.max_body_bytes, token=token, open_paths=OPEN_PATHS, known_paths=known,
        metrics=service.metrics,
    )  # fmt: skip
    return app


def _add_endpoints(app: FastAPI, service: Service, needs_token: bool) -> None:
    # the guard checks the token, before a body is read; this only says so in the OpenAPI description
    guarded: dict[str, Any] = {}
    if needs_token:
        guarded["dependencies"] = [Depends(HTTPBearer(auto_error=False, description="The server's token."))]
    refusals = _refusals(http_types.ErrorBody)
    posts: dict[str, Any] = guarded | {"methods": ["POST"], "responses": refusals}
    if service.predictor.intents:
        app.add_api_route("/model/parse", service.parse, response_model=http_types.ParseResponse, **posts)
    app.add_api_route("/embed", service.embed, response_model=list[list[float]], **posts)
    posts["responses"] = _refusals(http_types.OpenAIErrorBody)
    app.add_api_route("/v1/embeddings", service.openai_embeddings, response_model=http_types.OpenAIResponse, **posts)
    posts["responses"] = refusals
    app.add_api_route("/inspect", service.inspect, response_model=http_types.InspectResponse, **posts)
    app.add_api_route("/health", service.health, response_model=http_types.Health)
    app.add_api_route("/health", service.health, methods=["HEAD"], include_in_schema=False)  # as load balancers ask
    unauthorized: dict[int | str, dict[str, Any]] = {401: refusals[401]} if needs_token else {}
    app.add_api_route("/info", service.info, response_model=http_types.Info, responses=unauthorized, **guarded)
    text: dict[int | str, dict[str, Any]] = {200: {"content": {"text/plain": {"schema": {"type": "string"}}}}}
    app.add_api_route(
        "/metrics", service.show_metrics, response_class=Response, responses=text | unauthorized, **guarded
    )


def _refusals(body: type[Any]) -> dict[int | str, dict[str, Any]]:
    """Return what the OpenAPI description says of an endpoint's refusals."""
    found: dict[int | str, dict[str, Any]] = {}
    for error_type, status in http_types.STATUS.items():
        if error_type not in ("NotFound", "MethodNotAllowed"):
            before = f"{found[status]['description']}, " if status in found else ""
            found[status] = {"model": body, "description": before + error_type}
    return found


def _add_page(app: FastAPI, path: str, asset: str) -> None:
    page = read_page(asset)
    policy = f"{content_security_policy(page)}; frame-ancestors 'none'"
    headers = {"Content-Security-Policy": policy, "Referrer-Policy": "no-referrer"}

    async def show(_: Request) -> Response:
        return HTMLResponse(page, headers=headers)

    app.add_route(path, show)


async def _on_refusal(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    return refuse(request.url.path, error)


async def _on_invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return refuse(request.url.path, Refusal.from_validation(error.errors()[0]))


async def _on_http_error(request: Request, error: Exception) -> Response:
    """Answer what Starlette and FastAPI refuse: an unknown path, a wrong method, a body that is no JSON."""
    assert isinstance(error, HTTPException)
    path, method = request.url.path, request.method
    if error.status_code == 404:
        remedy = "only a model with heads has /model/parse" if path == "/model/parse" else "take one of those"
        refusal = Refusal("NotFound", f"expected one of the paths in /docs, got another one; {remedy}")
    elif error.status_code == 405:
        allowed = dict(error.headers or {})
        refusal = Refusal("MethodNotAllowed", f"expected {allowed.get('Allow', 'another method')}, got {method}; see "
                                              f"/docs", allowed)  # fmt: skip
    else:
        refusal = Refusal("InvalidJson", "expected a JSON object in UTF-8, got something else; correct the body")
    return refuse(path, refusal)


def bind(host: str, port: int) -> socket.socket:
    """Return a socket that holds an address; port 0 = any that is free. `run_server` listens on it.

    Raises:
        ConfigError: the address is none, taken, or not this machine's.
    """
    bound = None
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind, protocol)  # asyncio sends answers at once only where TCP is named
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port is free again as soon as a server ended
        bound.bind(address)
    except (OSError, UnicodeError) as error:
        if bound is not None:
            bound.close()
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"expected a free address to listen on, got {host} port {port}: {reason}; choose another "
                          f"--host or --port") from error  # fmt: skip
    return bound


class _Server(uvicorn.Server):
    """Says when it listens, and is stopped by a signal as by a plan: without dying of it when all is done."""

    def __init__(self, config: uvicorn.Config, announce: Callable[[], None]):
        super().__init__(config)
        self._announce = announce
        self.cancelled = 0

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._announce()

    def stop(self, *_: object) -> None:
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        unanswered = set(self.server_state.tasks)
        await super().shutdown(sockets)
        self.cancelled = sum(task.cancelling() > 0 for task in unanswered)


def run_server(app: FastAPI, bound: socket.socket, console: Console) -> None:
    """Answer requests until SIGTERM or Ctrl-C, then finish what was accepted and return."""
    host, port = bound.getsockname()[:2]
    address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    logging.getLogger("weebill").setLevel(logging.ERROR)  # of truncation; it is in the answers
    config = uvicorn.Config(app, log_level="warning", access_log=False, server_header=False, ws="none",
                            timeout_graceful_shutdown=STOP_SECONDS)  # fmt: skip
    line = f"{app.title} at {address} (playground /, endpoints /docs); Ctrl-C stops it"
    server = _Server(config, lambda: console.print(line, soft_wrap=True, highlight=False))
    for signal_number in (
        signal.SIGTERM,
        signal.SIGINT,
    ):  # before uvicorn does, and raised again by it after
        signal.signal(signal_number, server.stop)
    server.run(sockets=[bound])
    left = f"{server.cancelled} requests took longer than {STOP_SECONDS} s and were broken off"
    console.print(f"stopped; {left if server.cancelled else 'what was accepted is answered'}", highlight=False)
