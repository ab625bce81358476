"""The service as an ASGI application: what is asked where, what is let in, and how an answer is given."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from edge_cmcl.device import exposition
from edge_cmcl.device.memory import resident_bytes
from edge_cmcl.device.status import status
from edge_cmcl.device.store import open_store
from edge_cmcl.errors import EdgeCmclError
from edge_cmcl.service import openapi
from edge_cmcl.service.bodies import BINARY, JSON, kind_of, largest, read_body, size_of
from edge_cmcl.service.current import Current
from edge_cmcl.service.figures import Figures
from edge_cmcl.service.gate import Gate
from edge_cmcl.service.problems import Problem, answer_problem
from edge_cmcl.service.questions import QUESTIONS, Asked, Question, check_parameters
from edge_cmcl.service.recent import KEPT, Recent
from edge_cmcl.service.settings import ANSWER_S, BODIES, Settings

GENERATION = "Edge-Cmcl-Generation"
_NO_STORE = {"Cache-Control": "no-store"}
_LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass
class Service:
    """What one service holds.

    Attributes:
        settings: what it was asked to be.
        current: the generation that answers.
        workers: computes answers, `settings.workers` at once.
        aside: one thread for what must not wait for those: the drift watch and the figures.
        gate, recent, figures: see there.
    """

    settings: Settings
    current: Current
    workers: Executor
    aside: Executor
    recent: Recent = field(default_factory=Recent)
    figures: Figures = field(default_factory=Figures)
    gate: Gate = field(init=False)

    def __post_init__(self) -> None:
        bounds = self.settings
        self.gate = Gate(bounds.workers + bounds.queue, BODIES * bounds.max_body_bytes)


def make_app(service: Service, *, local_names_only: bool) -> ASGIApp:
    """Return the application.

    Args:
        service: what it serves.
        local_names_only: refuse requests for another host than this one, as a web page makes them whose name was
            pointed here (DNS rebinding).
    """
    routes = [Route(path, _Asking(service, question), methods=["POST"]) for path, question in QUESTIONS.items()]
    looks: dict[str, Callable[[], Awaitable[Response]]] = {
        "/healthz": partial(_health, service),
        "/drift": partial(_aside, service, _drift),
        "/metrics": partial(_aside, service, _metrics),
        "/openapi.json": partial(_described, service),
    }
    routes += [Route(path, _Looking(look), methods=["GET"]) for path, look in looks.items()]
    app = Starlette(routes=routes, exception_handlers={HTTPException: _refused})
    app.router.redirect_slashes = False
    return _Observed(app, service.figures, frozenset(route.path for route in routes), local_names_only)


class _Asking:
    """A question as an application: its place in the queue is held until the answer has been sent."""

    def __init__(self, service: Service, question: Question) -> None:
        self._service = service
        self._question = question

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        try:
            kind, binary = kind_of(request), _wants_binary(request)
            parameters = {name: request.query_params.getlist(name) for name in request.query_params}
            check_parameters(self._question, parameters)
            most = largest(kind, self._service.settings.max_body_bytes)
            with self._service.gate.admitted(size_of(request, most)):
                answer = await self._answer(request, most, partial(Asked, kind, parameters=parameters, binary=binary))
                if answer is not None:
                    await _send(answer, scope, receive, send)
        except (Problem, EdgeCmclError) as error:  # turned away at the door
            await _send(answer_problem(error), scope, receive, send)

    async def _answer(self, request: Request, most: int, asked: Callable[..., Asked]) -> Response | None:
        """Return the answer, or why there is none; None where the client has gone."""
        try:
            body = await read_body(request, most)
            compute = partial(_computed, self._service, self._question, asked(body=body))
            return await asyncio.get_running_loop().run_in_executor(self._service.workers, compute)
        except ClientDisconnect:
            return None
        except Exception as error:
            return answer_problem(error)


async def _send(answer: Response, scope: Scope, receive: Receive, send: Send) -> None:
    """Send an answer; a client that does not read it in time is given up, and the server closes its connection."""
    with suppress(asyncio.TimeoutError):
        await asyncio.wait_for(answer(scope, receive, send), ANSWER_S)


def _computed(service: Service, question: Question, asked: Asked) -> Response:
    model = service.current.model  # once: the whole answer is this generation's
    content = question.answer(model, asked, service.recent)
    kind = BINARY if asked.binary else JSON
    return Response(content, headers={GENERATION: model.loaded.digest, **_NO_STORE}, media_type=kind)


class _Looking:
    """A look at the service as an application."""

    def __init__(self, look: Callable[[], Awaitable[Response]]) -> None:
        self._look = look

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            answer = await self._look()
        except Exception as error:
            answer = answer_problem(error)
        await answer(scope, receive, send)


async def _health(service: Service) -> Response:
    current = service.current
    model = current.model
    shown = {
        "status": "behind" if current.behind else "ok",
        "generation": model.loaded.digest,
        "counter": model.generation.counter,
        "reason": current.behind,
        "modalities": list(model.modalities),
    }
    return Response(json.dumps(shown), headers=_NO_STORE, media_type=JSON)


async def _aside(service: Service, look: Callable[[Service], Response]) -> Response:
    return await asyncio.get_running_loop().run_in_executor(service.aside, partial(look, service))


async def _described(service: Service) -> Response:
    return Response(json.dumps(openapi.document(service.current.model)), headers=_NO_STORE, media_type=JSON)


def _drift(service: Service) -> Response:
    model = service.current.model
    shown = {
        "generation": model.loaded.digest,
        "counter": model.generation.counter,
        "kept": KEPT,
        "sensors": [each.as_json() for each in service.recent.drift(model)],
    }
    return Response(json.dumps(shown), headers=_NO_STORE, media_type=JSON)


def _metrics(service: Service) -> Response:
    try:
        store = open_store(service.settings.store)
        drift = service.recent.drift(service.current.model)  # against sketches, which are read when they are needed
        device, readable = exposition.told(store, status(store), drift), 1
    except EdgeCmclError:  # the figures of the service are wanted then, too
        device, readable = "", 0
    current, gate = service.current, service.gate
    gauges = {
        "serving_generation": ("Counter of the generation that answers.", current.model.generation.counter),
        "serving_behind": ("Whether the store's generation could not be opened.", int(bool(current.behind))),
        "store_readable": ("Whether the store could be read for these figures.", readable),
        "requests_inside": ("Requests in work and waiting.", gate.inside),
        "resident_bytes": ("Memory of the service.", resident_bytes()),
    }
    counters = {
        "requests_refused_total": ("Requests turned away: too many at once.", gate.refused),
        "generation_changes_total": ("How often another generation took over.", current.changes),
    }
    return Response(device + service.figures.told(gauges, counters), media_type=openapi.METRICS)


async def _refused(request: Request, error: Exception) -> Response:
    return answer_problem(error)


def _wants_binary(request: Request) -> bool:
    """Return whether Accept prefers tensors; JSON where it does not say.

    Raises:
        Problem: 406, it names neither.
    """
    qualities = {JSON: 0.0, BINARY: 0.0}
    accepted = request.headers.get("accept", "*/*")
    for part in accepted.lower().split(","):
        kind, *options = (text.strip() for text in part.split(";"))
        quality = next((_quality(option) for option in options if option.startswith("q=")), 1.0)
        for offered in qualities:
            if kind in (offered, f"{offered.partition('/')[0]}/*", "*/*"):
                qualities[offered] = max(qualities[offered], quality)
    if not any(qualities.values()):
        raise Problem(406, "nothing that Accept names is offered", expected=f"{JSON} or {BINARY}", got=accepted[:80])
    return qualities[BINARY] > qualities[JSON]


def _quality(option: str) -> float:
    try:
        return float(option.removeprefix("q="))
    except ValueError:
        return 0.0


class _Observed:
    """Counts every request, and refuses those for another host."""

    def __init__(self, app: ASGIApp, figures: Figures, paths: frozenset[str], local_names_only: bool) -> None:
        self._app = app
        self._figures = figures
        self._paths = paths
        self._local_names_only = local_names_only

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        began, status_code = time.perf_counter(), 0

        async def sending(message: Message) -> None:
            nonlocal status_code
            if message["type"] == "http.response.start":
                status_code = message["status"]
            await send(message)

        app = self._app if self._is_local(scope) else answer_problem(Problem(421, "this service has no such host"))
        await app(scope, receive, sending)
        if status_code:  # or else the client had gone
            path = scope["path"] if scope["path"] in self._paths else "other"
            self._figures.count(path, status_code, time.perf_counter() - began)

    def _is_local(self, scope: Scope) -> bool:
        if not self._local_names_only:
            return True
        host = dict(scope["headers"]).get(b"host", b"").decode("latin-1")
        return host.rpartition("]")[0].lstrip("[") in _LOCAL_NAMES or host.partition(":")[0] in _LOCAL_NAMES
