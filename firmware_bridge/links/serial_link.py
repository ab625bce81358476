"""A serial line, or a pseudo-terminal that stands for one."""

from __future__ import annotations

import termios

import serial

from edge_cmcl.errors import RemoteError
from firmware_bridge.links.link import READ_BYTES, lost

DEFAULT_BAUD = 921_600
_LOST = (serial.SerialException, OSError, TypeError, termios.error)  # TypeError: pyserial's, where it was closed


class SerialLink:
    """A serial line that nobody else may open meanwhile.

    Args:
        path: the device file.
        baud: bits per second; a USB device ignores it.

    Raises:
        RemoteError: it is not there, is in use, or must not be opened.
    """

    def __init__(self, path: str, baud: int = DEFAULT_BAUD) -> None:
        self.address = path
        try:
            self._port = serial.Serial(path, baud, timeout=0, write_timeout=5.0, exclusive=True)
        except (*_LOST, ValueError) as error:
            raise RemoteError(
                f"{path} cannot be opened",
                expected="a serial device that no other program has open",
                got=str(error),
                hint="list them: ls /dev/serial/by-id/; may this user open it (group dialout)?",
            ) from None

    def read(self, timeout_s: float) -> bytes:
        """See `Link.read`."""
        try:
            self._port.timeout = timeout_s
            data = self._port.read(1)
            return data + self._port.read(min(self._port.in_waiting, READ_BYTES - 1)) if data else data
        except _LOST as error:
            raise lost(self.address, error) from None

    def write(self, data: bytes) -> None:
        """See `Link.write`."""
        try:
            self._port.write(data)
        except _LOST as error:
            raise lost(self.address, error) from None

    def close(self) -> None:
        """See `Link.close`."""
        try:
            self._port.close()
        except _LOST:
            return
