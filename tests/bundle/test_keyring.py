from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import pytest

from edge_cmcl.bundle import keyring
from edge_cmcl.bundle.keyring import KeyLeftWarning, KeyRing, generate_key_file, own_key, rotate_own_key
from edge_cmcl.bundle.keys import PrivateKey, read_private_key, read_public_key
from edge_cmcl.bundle.trust import Trust
from edge_cmcl.bundle.twofold import DamagedFileWarning, copy_of
from edge_cmcl.errors import FormatError, ModelError, StoreLockedError, UsageError


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def private_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.pem"))


def works(folder: Path) -> str:
    """Check that the place can sign with the key that it says signs; return its fingerprint."""
    ring = KeyRing(folder)
    trust = ring.trust()
    key = ring.signer(trust)
    assert key is not None
    assert key.public.fingerprint == trust.own
    return trust.own


def test_a_key_is_made_once_and_only_its_user_can_read_it(tmp_path: Path) -> None:
    key, trust = own_key(tmp_path / "keys")
    again, _ = own_key(tmp_path / "keys")
    assert again.public == key.public
    assert works(tmp_path / "keys") == trust.own == key.public.fingerprint
    (private,) = private_files(tmp_path / "keys")
    assert mode(private) == 0o600


def test_a_private_key_is_never_readable_by_others_while_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    replace = Path.replace

    def noted(self: Path, target: Path) -> Path:
        if b"PRIVATE" in self.read_bytes():
            seen.append(mode(self))
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", noted)
    own_key(tmp_path / "keys")
    generate_key_file(tmp_path / "my.key", tmp_path / "my.key.pub")
    assert seen == [0o600, 0o600]


def test_key_files_are_a_pair_and_never_written_over(tmp_path: Path) -> None:
    private, public = tmp_path / "my.key", tmp_path / "my.key.pub"
    fingerprint = generate_key_file(private, public)
    assert (mode(private), mode(public) & 0o444) == (0o600, 0o444)
    assert read_private_key(private).public == read_public_key(public)
    assert read_public_key(public).fingerprint == fingerprint
    before = private.read_bytes()
    for left in ("my.key", "my.key.pub"):
        (tmp_path / left).rename(tmp_path / f"{left}.old")
        with pytest.raises(UsageError, match="exists"):
            generate_key_file(private, public)
        (tmp_path / f"{left}.old").rename(tmp_path / left)
    assert private.read_bytes() == before


def test_rotation_keeps_the_old_key_for_what_it_has_signed_and_removes_its_secret(tmp_path: Path) -> None:
    old, _ = own_key(tmp_path)
    trust, endorsed = rotate_own_key(tmp_path)
    assert endorsed
    assert works(tmp_path) == trust.own != old.public.fingerprint
    assert trust.standing(old.public.fingerprint) == "retired"
    assert trust.public()[old.public.fingerprint] == old.public
    assert [path.stem for path in private_files(tmp_path)] == [trust.own]
    assert len(trust.rotations()) == 1


def test_a_key_file_that_cannot_be_removed_is_told_and_does_not_undo_the_rotation(tmp_path: Path) -> None:
    old, _ = own_key(tmp_path)
    (tmp_path / f"{'a' * 64}.pem").mkdir()  # what is no file cannot be unlinked
    with pytest.warns(KeyLeftWarning, match="could not be removed"):
        trust, endorsed = rotate_own_key(tmp_path)
    assert endorsed
    assert works(tmp_path) == trust.own != old.public.fingerprint


@pytest.mark.parametrize("step", range(6))
def test_a_rotation_cut_off_anywhere_leaves_the_old_key_or_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """Of its three steps (new secret, `trust.json`, old secret), each fails before or after it was done."""
    old = own_key(tmp_path)[0].public.fingerprint
    write, twice, unlink, done = keyring.write_bytes, keyring.write_twice, Path.unlink, 0

    def cut(action: Any) -> Any:
        nonlocal done
        if done == step:
            raise KeyboardInterrupt
        result = action()
        done += 2
        if done - 1 == step:
            raise KeyboardInterrupt
        return result

    monkeypatch.setattr(keyring, "write_bytes", lambda *a, **k: cut(lambda: write(*a, **k)))
    monkeypatch.setattr(keyring, "write_twice", lambda *a: cut(lambda: twice(*a)))
    monkeypatch.setattr(Path, "unlink", lambda self, **k: cut(lambda: unlink(self, **k)))
    with pytest.raises(KeyboardInterrupt):
        rotate_own_key(tmp_path)
    monkeypatch.undo()
    now = works(tmp_path)
    assert (now == old) == (step <= 2)
    assert KeyRing(tmp_path).trust().standing(old) == ("trusted" if now == old else "retired")
    trust, endorsed = rotate_own_key(tmp_path)
    assert endorsed
    assert [path.stem for path in private_files(tmp_path)] == [trust.own]


def test_a_lost_or_damaged_secret_is_told_and_can_be_replaced(tmp_path: Path) -> None:
    for number, damage in enumerate((Path.unlink, lambda p: p.write_bytes(b"noise"), other_key)):
        folder = tmp_path / str(number)
        old = own_key(folder)[0].public.fingerprint
        damage(private_files(folder)[0])
        with pytest.raises(FormatError) as caught:
            own_key(folder)
        assert "keys rotate" in caught.value.hint
        trust, endorsed = rotate_own_key(folder)
        assert not endorsed
        assert trust.standing(old) == "retired"
        assert works(folder) == trust.own


def other_key(path: Path) -> None:
    path.write_bytes(PrivateKey.generate().to_pem())


def test_damaged_keys_are_told(tmp_path: Path) -> None:
    own_key(tmp_path)
    path = tmp_path / "trust.json"
    path.write_bytes(path.read_bytes().replace(b'"trusted"', b'"retired"'))
    with pytest.warns(DamagedFileWarning):
        assert KeyRing(tmp_path).trust().keys[0].standing == "trusted"
    copy_of(path).write_bytes(path.read_bytes())
    with pytest.raises(FormatError, match=r"trust\.json does not match its checksum") as caught:
        KeyRing(tmp_path).trust()
    assert "backup" in caught.value.hint
    for each in (path, copy_of(path)):
        each.write_bytes(b"x" * (5 << 20))
    with pytest.raises(FormatError, match="too large"):
        KeyRing(tmp_path).trust()
    for each in (path, copy_of(path)):
        each.unlink()
    assert KeyRing(tmp_path).trust() == Trust()


def test_two_rotations_at_once_do_not_mix(tmp_path: Path) -> None:
    own_key(tmp_path)
    with keyring.locked(tmp_path), pytest.raises(StoreLockedError):
        rotate_own_key(tmp_path)
    works(tmp_path)


def test_a_key_file_of_another_kind_is_bad_input(tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(b"x" * 5000)
    for name in ("nothing", "big"):
        with pytest.raises(ModelError, match="not a key file"):
            read_public_key(tmp_path / name)
