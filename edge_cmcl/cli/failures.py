"""From an exception to what the user sees: a message, what to do, and an exit code (design.md section 5).

Errors of `edge_cmcl.errors` say all of that themselves. The rest is a wrong command line (typer), an interruption,
a disk or a memory that is full, or a bug of ours, which gets a report file to attach.
"""

from __future__ import annotations

import errno
import os
import platform
import re
import sys
import tempfile
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import typer

from edge_cmcl.errors import EdgeCmclError

# The base class of typer's usage errors has no public name, and moved from click into typer in 0.26.
_COMMAND_LINE_ERROR = typer.BadParameter.__mro__[2]

_MACHINE_ERRNOS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOMEM}


class Terminated(BaseException):
    """A signal asked the process to end. Like KeyboardInterrupt, no `except Exception` may swallow it."""

    def __init__(self, number: int) -> None:
        super().__init__(f"signal {number}")
        self.number = number


@dataclass(frozen=True)
class Failure:
    """How a command ended that did not do what was asked."""

    kind: str
    message: str
    exit_code: int
    expected: str = ""
    got: str = ""
    to_do: str = ""


def describe(error: BaseException, argv: Sequence[str]) -> Failure:
    """Say what `error` means for the user who typed `argv`; for a bug of ours, write a report file."""
    if isinstance(error, EdgeCmclError):
        if error.exit_code == EdgeCmclError.exit_code:
            return _bug(error, argv)
        kind = type(error).__name__
        return Failure(kind, error.message, error.exit_code, error.expected, error.got, error.hint)
    if isinstance(error, _COMMAND_LINE_ERROR):
        return _wrong_command_line(error)
    if isinstance(error, (KeyboardInterrupt, typer.Abort)):
        return Failure("Interrupted", "interrupted before the end; what was there before is intact", 130)
    if isinstance(error, Terminated):
        return Failure("Terminated", "terminated before the end; what was there before is intact", 128 + error.number)
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno in _MACHINE_ERRNOS):
        message = str(error) or "out of memory"
        denied = isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EPERM)
        to_do = _let_in() if denied else "free space or memory, and try again"
        return Failure("PlatformError", message, 7, to_do=to_do)
    return _bug(error, argv)


def _let_in() -> str:
    """Say whom a file must be open to: on a device, the command of root becomes the service user."""
    user = user_name()
    return (
        f"this runs as {user}, who may not: copy the file where {user} can read it, by `install -o {user} FILE FOLDER`"
    )


def user_name() -> str:
    """Return the name of the user as whom this process runs, its number where it has none."""
    import pwd

    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return f"user {os.geteuid()}"


def _wrong_command_line(error: BaseException) -> Failure:
    message = getattr(error, "format_message", error.__str__)()
    context = getattr(error, "ctx", None)
    if type(error).__name__ == "NoArgsIsHelpError":
        return Failure("UsageError", f"a command is missing\n\n{message}", 2)
    if message.endswith("is not readable."):
        return Failure("UsageError", message, 2, to_do=_let_in())
    to_do = f"see `{context.command_path} --help`" if context else "see `edge-cmcl --help`"
    return Failure("UsageError", message, 2, to_do=to_do)


def _bug(error: BaseException, argv: Sequence[str]) -> Failure:
    message = f"{type(error).__name__}: {error}"
    try:
        report = _write_report(error, argv)
    except OSError:
        traceback.print_exception(error)
        to_do = "this is a bug of edge-cmcl: please report it with the lines above (no report file could be written)"
    else:
        to_do = f"this is a bug of edge-cmcl: please report it and attach {report}"
    return Failure("InternalError", message, 1, to_do=to_do)


def _write_report(error: BaseException, argv: Sequence[str]) -> Path:
    lines = [
        f"command: {' '.join(mask_secrets(argv))}",
        f"python: {sys.version}",
        f"platform: {platform.platform()}",
        *_versions(),
        "",
        *traceback.format_exception(error),
    ]
    with tempfile.NamedTemporaryFile("w", prefix="edge-cmcl-report-", suffix=".txt", delete=False) as file:
        file.write(_mask_url("\n".join(lines)))
    return Path(file.name)


def _versions() -> list[str]:
    from importlib.metadata import PackageNotFoundError, version

    found = []
    for name in (
        "edge-cmcl",
        "numpy",
        "onnxruntime",
        "safetensors",
        "pydantic",
        "cryptography",
        "typer",
        "torch",
        "onnx",
    ):
        try:
            found.append(f"{name}: {version(name)}")
        except PackageNotFoundError:
            found.append(f"{name}: not installed")
    return found


_SECRET_OPTION = re.compile(r"--?[\w-]*(token|password|passphrase|secret|key)[\w-]*", re.IGNORECASE)


def mask_secrets(argv: Sequence[str]) -> list[str]:
    """Return the command line with `***` for passwords in URLs and for values of options that name a secret."""
    masked: list[str] = []
    for i, argument in enumerate(argv):
        name, equals, _ = argument.partition("=")
        if equals and _SECRET_OPTION.fullmatch(name):
            masked.append(f"{name}=***")
        elif i > 0 and _SECRET_OPTION.fullmatch(argv[i - 1]):
            masked.append("***")
        else:
            masked.append(_mask_url(argument))
    return masked


def _mask_url(text: str) -> str:
    return re.sub(r"://[^/\s@]+@", "://***@", text)
