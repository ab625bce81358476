"""An MQTT topic as a link: `TOPIC/up` carries the firmware's bytes, `TOPIC/down` the host's."""

from __future__ import annotations

import queue
import ssl
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode

from edge_cmcl.errors import RemoteError
from firmware_bridge.links.link import READ_BYTES, lost

MAX_QUEUED = 4096
"""Messages that wait to be read; more are dropped, and show as lost frames."""
CONNECT_TIMEOUT_S = 10.0


class MqttLink:
    """A topic at an MQTT broker; every message holds any bytes of the stream, best whole frames.

    Messages go with QoS 0: a frame that comes late or twice is worth nothing, and losses are counted anyway.

    Args:
        host: of the broker.
        port: of the broker.
        topic: without `/up` and `/down`.
        user: None for an anonymous one.
        password: of the user.
        tls: whether to speak TLS, by the system's authorities.

    Raises:
        RemoteError: the broker is away, or refuses.
    """

    def __init__(self, host: str, port: int, topic: str, user: str | None, password: str | None, *, tls: bool) -> None:
        self.address = f"mqtt{'s' if tls else ''}://{host}:{port}/{topic}"
        self._topic = topic
        self._received: queue.Queue[bytes] = queue.Queue(MAX_QUEUED)
        self._events: queue.Queue[str] = queue.Queue()
        self._lost = ""
        self._client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv311)
        self._client.on_connect = self._on_connect
        self._client.on_disconnect = self._on_disconnect
        self._client.on_message = self._on_message
        self._client.on_subscribe = lambda *_: self._events.put("")
        if user:
            self._client.username_pw_set(user, password)
        if tls:
            self._client.tls_set_context(ssl.create_default_context())
        self._open(host, port)

    def _open(self, host: str, port: int) -> None:
        try:
            self._client.connect(host, port)
            self._client.loop_start()
            why = self._events.get(timeout=CONNECT_TIMEOUT_S)
        except (OSError, ValueError) as error:
            why = str(error)
        except queue.Empty:
            why = f"no answer within {CONNECT_TIMEOUT_S:g} s"
        if why:
            self.close()
            raise RemoteError(
                f"{self.address} cannot be reached",
                expected="an MQTT broker that lets this user in",
                got=why,
                hint="the password is taken from EDGE_CMCL_MQTT_PASSWORD",
            )

    def read(self, timeout_s: float) -> bytes:
        """See `Link.read`."""
        try:
            data = self._received.get(timeout=timeout_s)
        except queue.Empty:
            if self._lost:
                raise lost(self.address, self._lost) from None
            return b""
        while len(data) < READ_BYTES and not self._received.empty():
            data += self._received.get_nowait()
        return data

    def write(self, data: bytes) -> None:
        """See `Link.write`."""
        if self._lost:
            raise lost(self.address, self._lost)
        sent = self._client.publish(f"{self._topic}/down", data)
        if sent.rc not in (MQTTErrorCode.MQTT_ERR_SUCCESS, MQTTErrorCode.MQTT_ERR_NO_CONN):
            raise lost(self.address, paho.error_string(sent.rc))

    def close(self) -> None:
        """See `Link.close`."""
        self._client.on_disconnect = None
        self._client.disconnect()
        self._client.loop_stop()

    def _on_connect(self, client: Any, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        if reason.is_failure:
            self._events.put(str(reason))
        else:
            client.subscribe(f"{self._topic}/up")

    def _on_disconnect(self, _client: Any, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        self._lost = str(reason)

    def _on_message(self, _client: Any, _data: Any, message: Any) -> None:
        try:
            self._received.put_nowait(message.payload)
        except queue.Full:
            return
