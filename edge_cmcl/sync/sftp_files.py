"""A folder behind ssh, over SFTP (asyncssh): host keys checked, keys from the agent, ~/.ssh/config and ~/.ssh."""

from __future__ import annotations

import asyncio
import errno
import secrets
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

import asyncssh
from asyncssh.sftp import SFTPClient, SFTPClientFile

from edge_cmcl.errors import RemoteError
from edge_cmcl.sync.address import Address
from edge_cmcl.sync.files import Files, Sink
from edge_cmcl.sync.link import AwayError
from edge_cmcl.sync.settings import CONNECT_S, SILENCE_S, LinkSettings

T = TypeVar("T")

_PIECE_BYTES = 1 << 17
_BEAT_S, _BEATS = 10, 3
_STEP_S = 4 * SILENCE_S
_AWAY = (
    asyncssh.ConnectionLost,
    asyncssh.DisconnectError,
    asyncssh.ChannelOpenError,
    asyncssh.SFTPConnectionLost,
    asyncssh.SFTPNoConnection,
    asyncio.TimeoutError,
    OSError,
)


class SftpFiles(Files):
    """See `Files`. A connection that broke is opened anew by the next call."""

    local = False
    chunk_bytes = _PIECE_BYTES

    def __init__(self, address: Address, settings: LinkSettings) -> None:
        self._address = address
        self._settings = settings
        self._loop = asyncio.new_event_loop()
        self._connection: asyncssh.SSHClientConnection | None = None
        self._client: SFTPClient | None = None
        path = address.path
        self._root = (path[3:] or ".") if path.startswith("/~/") else path

    def size(self, path: str) -> int | None:
        """See `Files.size`."""
        with self._errors():
            found = self._run(self._sftp().stat(self._at(path)))
            return found.size if found is not None and found.type == asyncssh.FILEXFER_TYPE_REGULAR else None

    def has_folder(self, path: str) -> bool:
        """See `Files.has_folder`."""
        with self._errors():
            found = self._run(self._sftp().stat(self._at(path)))
            return found is not None and found.type == asyncssh.FILEXFER_TYPE_DIRECTORY

    def read(self, path: str, most: int) -> bytes | None:
        """See `Files.read`."""
        data = bytearray()
        if self.size(path) is None:
            return None
        for piece in self.pieces(path, 0):
            data += piece
            if len(data) >= most:
                break
        return bytes(data[:most])

    def pieces(self, path: str, offset: int) -> Iterator[bytes]:
        """See `Files.pieces`."""
        with self._errors():
            file = self._run(self._sftp().open(self._at(path), "rb"))
        if file is None:
            return
        try:
            while True:
                with self._errors():
                    piece = self._run(file.read(_PIECE_BYTES, offset))
                if not piece:
                    return
                offset += len(piece)
                yield piece if isinstance(piece, bytes) else piece.encode()
        finally:
            self._quietly(file)

    def names(self, folder: str) -> list[str] | None:
        """See `Files.names`."""
        with self._errors():
            found = self._run(self._sftp().listdir(self._at(folder)))
            return None if found is None else sorted(str(name) for name in found if name not in (".", ".."))

    def make_folder(self, path: str) -> None:
        """See `Files.make_folder`."""
        if not self.has_folder(path):
            with self._errors(), suppress(asyncssh.SFTPFileAlreadyExists, asyncssh.SFTPFailure):
                self._run(self._sftp().mkdir(self._at(path)))  # another writer may be first; what follows finds out

    def replace(self, path: str, data: bytes) -> None:
        """See `Files.replace`."""
        folder, _, _ = path.rpartition("/")
        beside = f"{folder}/.{secrets.token_hex(8)}.tmp".removeprefix("/")
        try:
            with self.extend(beside, 0) as sink:
                sink.write(data)
                sink.flush()
            self.move(beside, path)
        except BaseException:
            with suppress(AwayError, RemoteError):
                self.remove(beside)
            raise

    @contextmanager
    def extend(self, path: str, offset: int) -> Iterator[Sink]:
        """See `Files.extend`."""
        with self._errors():
            flags = asyncssh.FXF_READ | asyncssh.FXF_WRITE | asyncssh.FXF_CREAT
            file = self._run(self._sftp().open(self._at(path), flags, encoding=None))
            if file is None:
                raise asyncssh.SFTPNoSuchFile("no such folder")
        try:
            with self._errors():
                self._run(file.truncate(offset))
            yield _SftpSink(self, file, offset)
        finally:
            self._quietly(file)

    def move(self, path: str, target: str) -> bool:
        """See `Files.move`. Without OpenSSH's extension a file in the way has to be removed first."""
        with self._errors():
            try:
                self._run(self._sftp().posix_rename(self._at(path), self._at(target)))
            except asyncssh.SFTPOpUnsupported:
                with suppress(asyncssh.SFTPError):
                    self._run(self._sftp().remove(self._at(target)))
                self._run(self._sftp().rename(self._at(path), self._at(target)))
            except asyncssh.SFTPFailure:
                if not self.has_folder(target):
                    raise
                return False
        return True

    def remove(self, path: str) -> bool:
        """See `Files.remove`."""
        if self.size(path) is None:
            return False
        with self._errors():
            self._run(self._sftp().remove(self._at(path)))
        return True

    def close(self) -> None:
        """See `Files.close`."""
        self._drop()
        self._loop.close()

    def _at(self, path: str) -> str:
        return f"{self._root}/{path}"

    def _sftp(self) -> SFTPClient:
        """Return the client, connected anew where it has to be."""
        if self._client is None:
            self._client = self._run_all(self._connected())
        return self._client

    async def _connected(self) -> SFTPClient:
        options: dict[str, Any] = {"keepalive_interval": _BEAT_S, "keepalive_count_max": _BEATS}
        if self._settings.known_hosts is not None:
            options["known_hosts"] = str(self._settings.known_hosts)
        if self._settings.identity is not None:
            options["client_keys"] = [str(self._settings.identity)]
        if self._address.user:
            options["username"] = self._address.user
        if self._address.port is not None:
            options["port"] = self._address.port
        host = self._address.host
        self._connection = await asyncssh.connect(host, connect_timeout=CONNECT_S, login_timeout=SILENCE_S, **options)
        return await self._connection.start_sftp_client()

    def _run(self, step: Awaitable[T]) -> T | None:
        """Return what a step returns; None for a file that is not there."""
        try:
            return self._run_all(step)
        except (asyncssh.SFTPNoSuchFile, asyncssh.SFTPNoSuchPath):
            return None

    def _run_all(self, step: Awaitable[T]) -> T:
        return self._loop.run_until_complete(asyncio.wait_for(step, _STEP_S))

    def _quietly(self, file: SFTPClientFile) -> None:
        """Close a file; where that fails, the connection went, and whoever uses it next is told."""
        with suppress(*_AWAY, asyncssh.Error, asyncssh.SFTPError):
            self._run_all(file.close())

    def _drop(self) -> None:
        connection, self._connection, self._client = self._connection, None, None
        if connection is not None:
            with suppress(*_AWAY, asyncssh.Error):
                connection.abort()
                self._run_all(connection.wait_closed())

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Turn what asyncssh raises into what it means."""
        try:
            yield
        except (asyncssh.HostKeyNotVerifiable, asyncssh.KeyExchangeFailed) as error:
            hint = "add its host key to known_hosts, after a look at its fingerprint (ssh-keyscan, ssh-keygen -lf)"
            raise self._refused("does not prove who it is", "a host key in known_hosts", error, hint) from error
        except asyncssh.PermissionDenied as error:
            hint = "put this device's public key into authorized_keys there"
            raise self._refused("does not let us in", "a key that it knows", error, hint) from error
        except (asyncssh.KeyImportError, asyncssh.ConfigParseError) as error:
            hint = "check ~/.ssh/config and the key; one with a passphrase works through ssh-agent"
            raise self._refused("cannot be reached with this configuration", "a usable key", error, hint) from error
        except asyncssh.SFTPPermissionDenied as error:
            hint = "give this user permission to write there"
            raise self._refused("refuses", "a folder to read and write", error, hint) from error
        except asyncssh.SFTPError as error:
            if isinstance(error, _AWAY):
                self._drop()
                raise AwayError(str(error)) from error
            raise self._failed(error) from error
        except (*_AWAY, asyncssh.Error) as error:
            self._drop()
            raise AwayError(_reason(error)) from error

    def _failed(self, error: asyncssh.SFTPError) -> RemoteError:
        """Return what "Failure" means, which is all that OpenSSH's server says."""
        full = isinstance(error, (asyncssh.SFTPNoSpaceOnFilesystem, asyncssh.SFTPQuotaExceeded))
        with suppress(asyncssh.Error, asyncssh.SFTPError, *_AWAY):
            space = self._run_all(self._sftp().statvfs(self._root))
            full = full or (space.bavail or 0) * (space.frsize or 0) < _PIECE_BYTES
        if full:
            hint = "free space there; the same command goes on where this one stopped"
            return RemoteError(f"{self._address.url} is full", expected="space", got=str(error), hint=hint)
        return self._refused("refuses", "a folder to read and write", error, "check the folder on that machine")

    def _refused(self, how: str, expected: str, error: Exception, hint: str) -> RemoteError:
        return RemoteError(f"{self._address.url} {how}", expected=expected, got=_reason(error), hint=hint)


class _SftpSink(Sink):
    def __init__(self, files: SftpFiles, file: SFTPClientFile, offset: int) -> None:
        self._files = files
        self._file = file
        self._offset = offset

    def write(self, data: bytes) -> None:
        with self._files._errors():
            self._files._run_all(self._file.write(data, self._offset))
        self._offset += len(data)

    def flush(self) -> None:
        with self._files._errors(), suppress(asyncssh.SFTPOpUnsupported):
            self._files._run_all(self._file.fsync())


def _reason(error: BaseException) -> str:
    if isinstance(error, OSError) and error.errno:
        return f"{errno.errorcode.get(error.errno, '')} {error.strerror or error}".strip()
    return f"{type(error).__name__}: {error}".removesuffix(": ")
