"""Every error a user of edge-cmcl can meet, and the exit code the command line gives it.

EdgeCmclError                 1  a bug of ours, if it is ever raised bare
├── UsageError                2  the command was asked for something it does not offer
├── InputError                3  what the user gave cannot be used
│   ├── ProjectError             the project file
│   ├── DataError                a pairs file, a recording, a data set
│   │   ├── TooLittleDataError   too few pairs to learn or to judge from
│   │   └── DeadSensorError      a sensor that never changes
│   └── ModelError               a run, a bundle, an encoder
├── IntegrityError            4  bytes are not what they claim to be
│   ├── DigestError              a blob does not match its digest
│   ├── FormatError              a manifest, index or state file breaks its format
│   ├── SignatureError           a signature is wrong, or is for something else
│   └── ParityError              an exported model answers differently from its source
├── RefusedError              5  a guard said no
│   ├── UnsignedError            a bundle that nobody has signed
│   ├── UntrustedKeyError        signed, but by no key that is trusted here
│   ├── RevokedKeyError          signed by a key that was revoked here
│   ├── WrongDeviceError         a bundle bound to another device class
│   ├── WrongBaseError           a bundle of another project or history
│   └── OlderError               a bundle older than what the device had
├── RemoteError               6  the other side is away
└── PlatformError             7  this machine cannot do it
    ├── StoreLockedError         another process writes to the store
    ├── StorageError             read-only, full or forbidden
    └── MissingExtraError        a part of edge-cmcl that is not installed

EdgeCmclWarning                  the command goes on, and its user should know why it might not have
"""

from __future__ import annotations

MAX_TEXT = 2000
"""Characters of each part of an error."""


class EdgeCmclError(Exception):
    """Base of all errors: what happened, what was expected, what came, and what to do about it.

    What is absurdly long is cut, and control characters are escaped.

    Args:
        message: one sentence, naming the file or object.
        expected: what would have been right.
        got: what was there instead.
        hint: what the user can do now.
    """

    exit_code = 1

    def __init__(self, message: str, *, expected: str = "", got: str = "", hint: str = "") -> None:
        super().__init__(_shown(message))
        self.message = _shown(message)
        self.expected = _shown(expected)
        self.got = _shown(got)
        self.hint = _shown(hint)

    def __str__(self) -> str:
        parts = [self.message]
        parts += [f"  {name}: {text}" for name, text in self.details().items()]
        return "\n".join(parts)

    def details(self) -> dict[str, str]:
        """Return the filled-in parts beside the message, in reading order."""
        named = {"expected": self.expected, "got": self.got, "to do": self.hint}
        return {name: text for name, text in named.items() if text}


def _shown(text: str) -> str:
    """Return `text`, which may quote a hostile file, as it can be printed.

    It is cut where it is absurdly long, and what a terminal would obey or UTF-8 cannot hold is escaped.
    """
    shown = text[: MAX_TEXT + 1]
    if not shown.isprintable():
        shown = "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in shown)
    return shown if len(shown) <= MAX_TEXT else f"{shown[: MAX_TEXT - 3]}..."


class UsageError(EdgeCmclError):
    """The command was asked for something it does not offer."""

    exit_code = 2


class InputError(EdgeCmclError):
    """What the user gave cannot be used."""

    exit_code = 3


class ProjectError(InputError):
    """The project file is not valid."""


class DataError(InputError):
    """A pairs file, a recording or a data set cannot be used."""


class TooLittleDataError(DataError):
    """There are too few pairs to learn or to judge from."""


class DeadSensorError(DataError):
    """A sensor never changes in a recording."""


class ModelError(InputError):
    """A run, a bundle or an encoder cannot be used."""


class IntegrityError(EdgeCmclError):
    """Bytes are not what they claim to be."""

    exit_code = 4


class DigestError(IntegrityError):
    """A blob does not match its digest or size."""


class FormatError(IntegrityError):
    """A manifest, index or state file breaks its format."""


class SignatureError(IntegrityError):
    """A signature is wrong, or is for something else."""


class ParityError(IntegrityError):
    """An exported model answers differently from its source."""


class RefusedError(EdgeCmclError):
    """A guard said no."""

    exit_code = 5


class UnsignedError(RefusedError):
    """A bundle that nobody has signed."""


class UntrustedKeyError(RefusedError):
    """Signed, but by no key that is trusted here."""


class RevokedKeyError(RefusedError):
    """Signed by a key that was revoked here."""


class WrongDeviceError(RefusedError):
    """A bundle bound to another device class."""


class WrongBaseError(RefusedError):
    """A bundle of another project or history."""


class OlderError(RefusedError):
    """A bundle older than what the device had."""


class RemoteError(EdgeCmclError):
    """The other side is away, or the link failed."""

    exit_code = 6


class PlatformError(EdgeCmclError):
    """This machine cannot do it as it stands."""

    exit_code = 7


class StoreLockedError(PlatformError):
    """Another process writes to the store."""


class StorageError(PlatformError):
    """The file system is read-only, full or forbidden."""


class MissingExtraError(PlatformError):
    """A part of edge-cmcl that is not installed here."""


class EdgeCmclWarning(UserWarning):
    """The command goes on, and its user should know why it might not have."""
