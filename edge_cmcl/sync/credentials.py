"""Credentials of a registry: from the environment, else from docker's config.json. They go into no message."""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

_MAX_CONFIG_BYTES = 1 << 20
_PARAMETER = re.compile(r'([A-Za-z]+)="([^"]{0,2048})"')


@dataclass(frozen=True)
class Credentials:
    """A user and a password, both of them secret enough not to be shown."""

    user: str
    password: str

    def __repr__(self) -> str:
        return "Credentials(...)"

    def basic(self) -> str:
        """Return the value of an Authorization header."""
        return "Basic " + base64.b64encode(f"{self.user}:{self.password}".encode()).decode()


def find_credentials(host: str, port: int | None) -> Credentials | None:
    """Return the credentials for a registry: EDGE_CMCL_REGISTRY_USER and _PASSWORD, else `auths` of docker's config."""
    user = os.environ.get("EDGE_CMCL_REGISTRY_USER")
    if user:
        return Credentials(user, os.environ.get("EDGE_CMCL_REGISTRY_PASSWORD", ""))
    auths = _docker_auths()
    name = host if port is None else f"{host}:{port}"
    for key in (name, f"https://{name}", f"https://{name}/v2/", f"https://{name}/v1/"):
        entry = auths.get(key)
        found = _decoded(entry.get("auth")) if isinstance(entry, dict) else None
        if found is not None:
            return found
    return None


def parse_challenge(header: str) -> tuple[str, dict[str, str]]:
    """Return the scheme of a WWW-Authenticate header in lower case, and its parameters."""
    scheme, _, rest = header[:8192].partition(" ")
    return scheme.lower(), {name.lower(): value for name, value in _PARAMETER.findall(rest)}


def _docker_auths() -> dict[str, object]:
    folder = os.environ.get("DOCKER_CONFIG")
    path = (Path(folder) if folder else Path.home() / ".docker") / "config.json"
    try:
        with path.open("rb") as file:
            config = json.loads(file.read(_MAX_CONFIG_BYTES))
    except (OSError, ValueError, RecursionError):
        return {}
    auths = config.get("auths") if isinstance(config, dict) else None
    return auths if isinstance(auths, dict) else {}


def _decoded(text: object) -> Credentials | None:
    try:
        user, colon, password = base64.b64decode(str(text), validate=True).decode().partition(":")
    except (binascii.Error, ValueError):
        return None
    return Credentials(user, password) if colon else None
