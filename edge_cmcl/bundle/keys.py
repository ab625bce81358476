"""Ed25519 keys and their files (FORMAT.md, "Signatures"). The cryptography is all of the library `cryptography`."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from cryptography.exceptions import InternalError, InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from edge_cmcl.bundle import limits
from edge_cmcl.bundle.base64 import decode, encode
from edge_cmcl.bundle.reading import read_file
from edge_cmcl.errors import FormatError, ModelError

RAW_BYTES = 32
_SHORT = 16


@dataclass(frozen=True)
class PublicKey:
    """A public key: its 32 bytes (RFC 8032)."""

    raw: bytes

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the key's SubjectPublicKeyInfo, 64 hexadecimal digits.

        The same as `openssl pkey -pubin -in KEY.pub -outform der | sha256sum`.
        """
        der = self._library_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        return hashlib.sha256(der).hexdigest()

    def verifies(self, signature: bytes, data: bytes) -> bool:
        """Return whether `signature` is this key's over `data`."""
        try:
            self._library_key().verify(signature, data)
        except InvalidSignature:
            return False
        return True

    def encoded(self) -> str:
        """Return it as documents hold it: base64 of the 32 bytes."""
        return encode(self.raw)

    def to_pem(self) -> bytes:
        """Return its file."""
        return self._library_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    def _library_key(self) -> Ed25519PublicKey:
        return Ed25519PublicKey.from_public_bytes(self.raw)


@dataclass(frozen=True)
class PrivateKey:
    """A private key. Neither its text nor any error shows what is secret about it."""

    _key: Ed25519PrivateKey = field(repr=False)

    @classmethod
    def generate(cls) -> PrivateKey:
        """Return a new key."""
        return cls(Ed25519PrivateKey.generate())

    @cached_property
    def public(self) -> PublicKey:
        """Its public half."""
        raw = self._key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
        return PublicKey(raw)

    def sign(self, data: bytes) -> bytes:
        """Return the signature of `data`, 64 bytes; equal data, equal signature."""
        return self._key.sign(data)

    def to_pem(self) -> bytes:
        """Return its file: PKCS 8, not encrypted."""
        return self._key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )


def decode_key(text: str, name: str) -> PublicKey:
    """Return the public key that a document holds; `name` says in errors which document.

    Raises:
        FormatError: it is no key.
    """
    raw = decode(text, name)
    if len(raw) != RAW_BYTES:
        raise FormatError(f"{name} holds no key", expected=f"{RAW_BYTES} bytes", got=f"{len(raw)} bytes")
    return PublicKey(raw)


def public_key_from_pem(data: bytes, name: str) -> PublicKey:
    """Return the public key in a PEM file; `name` says in errors which one.

    Raises:
        ModelError: it is none, or not of Ed25519.
    """
    try:
        key = serialization.load_pem_public_key(data)
    except (ValueError, UnsupportedAlgorithm, InternalError):
        key = None
    if not isinstance(key, Ed25519PublicKey):
        got = "a private key" if b"PRIVATE KEY" in data else "something else"
        raise ModelError(
            f"{name} is not a public key",
            expected="an Ed25519 public key in PEM, as `edge-cmcl keys generate --out KEY` writes to KEY.pub",
            got=got,
            hint="name the file that ends in .pub; the private key stays where it was made",
        )
    return PublicKey(key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw))


def private_key_from_pem(data: bytes, name: str) -> PrivateKey:
    """Return the private key in a PEM file; `name` says in errors which one. Nothing of `data` gets into an error.

    Raises:
        ModelError: it is none, not of Ed25519, or encrypted.
    """
    try:
        key = serialization.load_pem_private_key(data, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm, InternalError):  # the last: a key of another length
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise ModelError(
            f"{name} is not a private key that can be used",
            expected="an Ed25519 private key in PEM (PKCS 8), not encrypted",
            got="a public key" if b"PUBLIC KEY" in data else "something else",
            hint="`edge-cmcl keys generate --out KEY` makes one",
        )
    return PrivateKey(key)


def read_public_key(path: Path) -> PublicKey:
    """Read a public key file of the user's; raises as `public_key_from_pem`, and ModelError where there is none."""
    return public_key_from_pem(_read_key_file(path), str(path))


def read_private_key(path: Path) -> PrivateKey:
    """Read a private key file of the user's; raises as `private_key_from_pem`, and ModelError where there is none."""
    return private_key_from_pem(_read_key_file(path), str(path))


def short(fingerprint: str) -> str:
    """Return the start of a fingerprint, to show; never to compare."""
    return fingerprint[:_SHORT]


def _read_key_file(path: Path) -> bytes:
    try:
        if path.is_dir():
            raise FormatError(f"{path} is a folder")
        return read_file(path, limits.MAX_KEY_FILE_BYTES)
    except FormatError as error:
        raise ModelError(f"{path} is not a key file", expected="a key in PEM", got=error.message) from None
