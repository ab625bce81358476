"""Addresses of remotes: `oci://host[:port]/repository`, `file:///path`, `ssh://[user@]host[:port]/path`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import SplitResult, unquote, urlsplit

from edge_cmcl.errors import UsageError

_EXPECTED = "oci://host[:port]/repository, file:///path, or ssh://[user@]host[:port]/path"
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,252})|[0-9A-Fa-f:.]{2,45}")
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}")
_MAX_ADDRESS = 1000
_MAX_REPOSITORY = 255


@dataclass(frozen=True)
class Address:
    """A remote as its user named it.

    Attributes:
        url: the text; it holds no password.
        scheme: "oci", "file" or "ssh".
        host: "" for file.
        port: None for the scheme's own.
        path: repository of a registry, else the absolute path of a folder; of ssh, `/~/x` is x in the home folder.
        user: of ssh, "" for the one that ssh's configuration or the system names.
    """

    url: str
    scheme: str
    host: str
    port: int | None
    path: str
    user: str = ""


def parse_address(url: str) -> Address:
    """Return the parts of the address of a remote.

    Raises:
        UsageError: it is none. Where it holds a password, the error does not.
    """
    if len(url) > _MAX_ADDRESS or not url.isprintable():
        raise _bad("a remote's address", "that is too long or has control characters in it")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise _bad("a remote's address", "that has a bad host or port") from error
    if parts.scheme not in _PARSERS:
        raise _bad(f"{_without_user(parts)!r}", f"the scheme {parts.scheme!r}" if parts.scheme else "no scheme")
    if parts.password is not None:
        hint = (
            "credentials come from the environment (EDGE_CMCL_REGISTRY_USER, _PASSWORD), docker's config, or ssh keys"
        )
        raise UsageError(
            "the address of a remote holds a password", expected=_EXPECTED, got="user:password@", hint=hint
        )
    if parts.query or parts.fragment:
        raise _bad(repr(_without_user(parts)), "a query or fragment")
    return _PARSERS[parts.scheme](url, parts, host, port)


def _registry(url: str, parts: SplitResult, host: str, port: int | None) -> Address:
    repository = parts.path.removeprefix("/").removesuffix("/")
    name = repr(_without_user(parts))
    if parts.username is not None or not _HOST.fullmatch(host):
        raise _bad(name, "a user" if parts.username is not None else f"the host {host!r}")
    if not _REPOSITORY.fullmatch(repository) or len(repository) > _MAX_REPOSITORY:
        expected = "a repository of lower-case letters, digits and . _ - /, without a tag: oci://host/fleet/machine"
        raise UsageError(f"{name} names no repository", expected=expected, got=repr(repository))
    return Address(url, "oci", host, port, repository)


def _folder(url: str, parts: SplitResult, host: str, port: int | None) -> Address:
    path = unquote(parts.path)
    if host not in ("", "localhost") or port is not None or not path.startswith("/") or "\0" in path:
        raise UsageError(f"{_without_user(parts)!r} names no folder", expected="file:///absolute/path", got=url)
    return Address(url, "file", "", None, path)


def _ssh(url: str, parts: SplitResult, host: str, port: int | None) -> Address:
    path, user = unquote(parts.path), unquote(parts.username or "")
    if not _HOST.fullmatch(host) or (user and not _USER.fullmatch(user)):
        raise _bad(repr(_without_user(parts)), f"the user {user!r} at the host {host!r}")
    if len(path) < 2 or "\0" in path:
        expected = "ssh://[user@]host[:port]/path, or /~/path for one in the home folder"
        raise UsageError(f"{url!r} names no folder", expected=expected, got=repr(path))
    return Address(url, "ssh", host, port, path, user)


_PARSERS = {"oci": _registry, "file": _folder, "ssh": _ssh}


def _without_user(parts: SplitResult) -> str:
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()[:200]


def _bad(what: str, got: str) -> UsageError:
    return UsageError(f"{what} is not the address of a remote", expected=_EXPECTED, got=got)
