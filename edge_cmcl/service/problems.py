"""Why a request was not answered, as problem details (RFC 9457): the errors of the command line, and those of HTTP."""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Mapping
from http import HTTPStatus

from starlette.exceptions import HTTPException
from starlette.responses import Response

from edge_cmcl.errors import EdgeCmclError, InputError, PlatformError, UsageError

MEDIA_TYPE = "application/problem+json"


class Problem(Exception):  # noqa: N818, it is what RFC 9457 calls it
    """A request that HTTP alone refuses.

    Args:
        status: the HTTP status.
        message: what happened.
        expected, got, hint: as in `errors.EdgeCmclError`.
        headers: of the answer.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        expected: str = "",
        got: str = "",
        hint: str = "",
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.details = {"expected": expected, "got": got, "to_do": hint}
        self.headers = headers or {}


def answer_problem(error: Exception) -> Response:
    """Return the answer to a request that failed with `error`; what is a bug of ours is told on stderr."""
    if isinstance(error, Problem):
        return _response(error.status, error.message, error.details, error.headers)
    if isinstance(error, HTTPException):
        return _response(error.status_code, error.detail, {}, dict(error.headers or {}))
    if isinstance(error, EdgeCmclError) and error.exit_code != EdgeCmclError.exit_code:
        details = {"error": type(error).__name__, "expected": error.expected, "got": error.got, "to_do": error.hint}
        return _response(_status(error), error.message, {**details, "exit_code": error.exit_code}, {})
    traceback.print_exception(error, file=sys.stderr)
    return _response(500, "a bug of edge-cmcl; its log says more", {}, {})


def _status(error: EdgeCmclError) -> int:
    if isinstance(error, UsageError):
        return 400
    if isinstance(error, InputError):
        return 422
    return 503 if isinstance(error, PlatformError) else 500


def _response(status: int, message: str, details: Mapping[str, str | int], headers: dict[str, str]) -> Response:
    document = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": message,
        **{name: value for name, value in details.items() if value != ""},
    }
    return Response(json.dumps(document), status, headers, MEDIA_TYPE)
