"""The keys of one place on its disk: `trust.json` and the private key that signs (FORMAT.md, "Trust").

The one file that decides is replaced atomically, so every change has happened or not. A private key is written before
`trust.json` names it and removed after it does no more: a kill in between leaves a key file that nothing names, which
the next change removes.
"""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass
from pathlib import Path

from edge_cmcl.bundle import limits
from edge_cmcl.bundle.documents import sealed, unsealed
from edge_cmcl.bundle.generation import timestamp
from edge_cmcl.bundle.keys import PrivateKey, PublicKey, private_key_from_pem, short
from edge_cmcl.bundle.lock import locked
from edge_cmcl.bundle.reading import read_file
from edge_cmcl.bundle.statement import endorsement
from edge_cmcl.bundle.store_files import TRUST_FILE
from edge_cmcl.bundle.trust import Trust, owning
from edge_cmcl.bundle.twofold import copy_of, read_either, write_twice
from edge_cmcl.durable import make_folder, storage_errors, write_bytes
from edge_cmcl.errors import EdgeCmclWarning, FormatError, ModelError, StorageError, UsageError

_PRIVATE = ".pem"


class KeyLeftWarning(EdgeCmclWarning):
    """A private key that signs no more could not be removed from the disk."""


def own_key(folder: Path) -> tuple[PrivateKey, Trust]:
    """Return the private key of a host's user, made when first needed, and the keys that `folder` holds.

    Raises:
        FormatError: it is damaged.
        StoreLockedError, StorageError: it cannot be made.
    """
    make_folder(folder)
    with locked(folder):
        ring = KeyRing(folder)
        before = ring.trust()
        key, trust = ring.made(before)
        if trust != before:
            ring.save(trust)
    return key, trust


def rotate_own_key(folder: Path) -> tuple[Trust, bool]:
    """Replace the key of a host's user (`KeyRing.rotate`); raises as `own_key`."""
    make_folder(folder)
    with locked(folder):
        return KeyRing(folder).rotate()


def generate_key_file(private: Path, public: Path) -> str:
    """Write a new key to two files, the private one with mode 0600; return its fingerprint.

    Raises:
        UsageError: one of the files is there: no key is ever written over.
        StorageError: the file system refused.
    """
    for path in (private, public):
        _check_new(path)
    key = PrivateKey.generate()
    write_bytes(private, key.to_pem(), private=True)
    write_bytes(public, key.public.to_pem())
    return key.public.fingerprint


def write_public(key: PublicKey, path: Path) -> None:
    """Write a public key to a new file, for those who are to trust it.

    Raises:
        UsageError: the file is there.
        StorageError: the file system refused.
    """
    _check_new(path)
    write_bytes(path, key.to_pem())


def _check_new(path: Path) -> None:
    if path.exists():
        raise UsageError(f"{path} exists", expected="a new path", got="a file", hint="choose another one")


@dataclass(frozen=True)
class KeyRing:
    """The folder in which a place keeps its keys; whoever changes it holds the place's writer lock."""

    folder: Path

    def trust(self) -> Trust:
        """Read which keys are known, or the copy of that where it is damaged; none, where there is no such file.

        Raises:
            FormatError: both break their format or checksum.
            StorageError: the file system could not read it.

        Warns:
            DamagedFileWarning: the copy was used.
        """
        path = self.folder / TRUST_FILE
        if not path.exists() and not copy_of(path).exists():
            return Trust()
        return read_either(path, trust_from_json)

    def save(self, trust: Trust) -> None:
        """Replace which keys are known, and remove private keys that sign no more.

        Raises:
            StorageError: the file system refused; the keys are as they were.

        Warns:
            KeyLeftWarning: they were replaced, and a private key that signs no more could not be removed.
        """
        data = sealed(trust)
        trust_from_json(data, "the new keys")
        make_folder(self.folder)
        write_twice(self.folder / TRUST_FILE, data)
        try:
            self.tidy(trust)
        except StorageError as error:  # the change has happened: it must not look as if it had not
            text = f"a private key that signs no more could not be removed: {error.got}; the next change will"
            warnings.warn(text, KeyLeftWarning, stacklevel=2)

    def signer(self, trust: Trust) -> PrivateKey | None:
        """Return the private key that signs here, None where none was made yet.

        Raises:
            FormatError: its file is missing, damaged, or of another key.
        """
        if not trust.own:
            return None
        path = self._private(trust.own)
        hint = "restore it from a backup, or `edge-cmcl keys rotate` to sign with a new one"
        try:
            key = private_key_from_pem(read_file(path, limits.MAX_KEY_FILE_BYTES), str(path))
        except ModelError as error:
            raise FormatError(f"{path} is damaged", expected=error.expected, got=error.got, hint=hint) from None
        except FormatError as error:
            error.hint = hint
            raise
        if key.public.fingerprint != trust.own:
            got = f"key {short(key.public.fingerprint)}"
            raise FormatError(f"{path} is another key", expected=f"key {short(trust.own)}", got=got, hint=hint)
        return key

    def made(self, trust: Trust) -> tuple[PrivateKey, Trust]:
        """Return the private key that signs here and the keys with it; make it where there is none.

        A new one is on the disk, but counts only once the trust returned is saved.

        Raises:
            FormatError: the key that there is cannot be used.
            StorageError: the file system refused.
        """
        key = self.signer(trust)
        if key is not None:
            return key, trust
        key = self._generated()
        return key, owning(trust, key.public, timestamp())

    def rotate(self) -> tuple[Trust, bool]:
        """Replace the key that signs here; return the keys, and whether the old one could endorse the new one.

        The new private key is written first, then `trust.json`, which names it, retires the old key and holds what the
        old one says of the new one; last, the old private key is removed. Before the second step, the old key signs
        and the new file is debris; after it, the new key signs and the old file is.

        Raises:
            FormatError: `trust.json` is damaged.
            StorageError: the file system refused.
        """
        trust = self.trust()
        try:
            old = self.signer(trust)
        except FormatError:  # a lost or damaged key must not keep a device from having another one
            old = None
        new = self._generated()
        rotation = endorsement(old, new.public) if old is not None else None
        trust = owning(trust, new.public, timestamp(), rotation)
        self.save(trust)
        return trust, rotation is not None

    def _generated(self) -> PrivateKey:
        key = PrivateKey.generate()
        make_folder(self.folder)
        write_bytes(self._private(key.public.fingerprint), key.to_pem(), private=True)
        return key

    def _private(self, fingerprint: str) -> Path:
        return self.folder / f"{fingerprint}{_PRIVATE}"

    def tidy(self, trust: Trust) -> None:
        """Remove private keys that sign no more, and what a killed writer left.

        Raises:
            StorageError: the file system refused.
        """
        ours = re.compile(rf"[0-9a-f]{{64}}{re.escape(_PRIVATE)}")
        secrets = [path for path in self.folder.glob(f"*{_PRIVATE}") if ours.fullmatch(path.name)]
        with storage_errors(self.folder):
            for path in (*(secrets if trust.own else ()), *self.folder.glob(".*.tmp")):
                if path != self._private(trust.own):
                    path.unlink(missing_ok=True)


def trust_from_json(data: bytes, name: str) -> Trust:
    """Parse `trust.json`.

    Raises:
        FormatError: it breaks its format or checksum.
    """
    return unsealed(
        Trust, data, name, "restore it from a backup, or move it and its copy away and trust the keys again"
    )
