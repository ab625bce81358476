"""Running a service until it is told to stop."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any

import uvicorn

from edge_cmcl.device.fits import FitWarning
from edge_cmcl.service.app import Service, make_app
from edge_cmcl.service.current import Current
from edge_cmcl.service.listening import is_local, listening, notify
from edge_cmcl.service.settings import DRAIN_S, KEEP_ALIVE_S, MAX_CONNECTIONS, POLL_S, Settings

Told = Callable[[str], None]

_THREADS = 1
"""Of one operator: requests run side by side instead, which costs no waiting between threads."""


def serve(settings: Settings, told: Told) -> dict[str, Any]:
    """Serve until SIGTERM or SIGINT, finish the requests that are there, and return what was done, in JSON types.

    Args:
        settings: the service.
        told: what happens, for people.

    Raises:
        ModelError, DigestError, FormatError: there is no generation to serve (`opening.open_model`).
        RefusedError, UsageError, PlatformError, StorageError: it cannot listen there (`listening.listening`).
    """
    # Each answer says so itself; the registry of those that were shown would grow with what clients send.
    warnings.simplefilter("ignore", FitWarning)
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)  # a client's mistakes are not ours
    began = time.monotonic()
    with (
        listening(settings) as (taken, address),
        ThreadPoolExecutor(settings.workers, "answer") as workers,
        ThreadPoolExecutor(1, "aside") as aside,
    ):
        remote = not is_local(taken)
        service = Service(settings, Current(settings.store, _THREADS, told), workers, aside)
        first = service.current.model.generation.counter
        told(f"generation {first} answers on {address}")
        asyncio.run(_run(service, taken, told))
        model = service.current.model
    return {
        "address": address,
        "remote": remote,
        "answered": service.figures.answered,
        "refused": service.gate.refused,
        "generation_changes": service.current.changes,
        "generation": model.loaded.digest,
        "counter": model.generation.counter,
        "seconds": time.monotonic() - began,
    }


async def _run(service: Service, taken: socket.socket, told: Told) -> None:
    loopback = taken.family != socket.AF_UNIX and is_local(taken)
    config = uvicorn.Config(
        make_app(service, local_names_only=loopback),
        http="h11",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=MAX_CONNECTIONS,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=DRAIN_S,
    )
    following = asyncio.create_task(_follow(service))
    try:
        await _Server(config, told).serve([taken])
    finally:
        following.cancel()
        with suppress(asyncio.CancelledError):
            await following


async def _follow(service: Service) -> None:
    """Look for another generation until cancelled."""
    while True:
        await asyncio.sleep(POLL_S)
        await asyncio.to_thread(service.current.look)


class _Server(uvicorn.Server):
    """Ends well where it is told to stop, instead of by the signal that told it; and tells systemd."""

    def __init__(self, config: uvicorn.Config, told: Told) -> None:
        super().__init__(config)
        self._told = told

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        notify("READY=1")

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        notify("STOPPING=1")
        self._told("stopping: requests that are here are finished")
        await super().shutdown(sockets)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        numbers = (signal.SIGINT, signal.SIGTERM)
        before = [signal.signal(number, self.handle_exit) for number in numbers]
        try:
            yield
        finally:
            for number, handler in zip(numbers, before, strict=True):
                signal.signal(number, handler)
