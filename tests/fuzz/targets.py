"""The fuzz targets: each parser of bytes from elsewhere, what may come of it, and real documents to start from."""

from __future__ import annotations

import fcntl
import io
import json
import os
import sys
import tarfile
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "fuzz")]

from bridge_targets import BRIDGE_TARGETS  # noqa: E402
from bundle_samples import make_adapter, make_golden, make_labels, make_origin, make_store  # noqa: E402
from fleet_targets import FLEET_TARGETS  # noqa: E402
from mutate import blind, dumped, in_base64, in_json, in_safetensors, in_tar, words  # noqa: E402
from target import Target, ViolationError, folder, same, written  # noqa: E402

from edge_cmcl import tensors  # noqa: E402
from edge_cmcl.bundle import Layout, State, payloads, tarball  # noqa: E402
from edge_cmcl.bundle.canonical import canonical, digest_of, parse  # noqa: E402
from edge_cmcl.bundle.documents import (  # noqa: E402
    Declined,
    Index,
    Manifest,
    Reverted,
    SyncState,
    Trial,
    from_json,
    sealed,
    state_from_json,
    state_to_json,
    to_json,
    unsealed,
)
from edge_cmcl.bundle.envelope import envelope_from_json, sign  # noqa: E402
from edge_cmcl.bundle.generation import Generation, check_manifest, generation_from_json, layers_of  # noqa: E402
from edge_cmcl.bundle.keys import (  # noqa: E402
    PrivateKey,
    PublicKey,
    decode_key,
    private_key_from_pem,
    public_key_from_pem,
)
from edge_cmcl.bundle.lock import locked  # noqa: E402
from edge_cmcl.bundle.media_types import STATEMENT  # noqa: E402
from edge_cmcl.bundle.signature import Keys  # noqa: E402
from edge_cmcl.bundle.statement import check_statement, endorsed, endorsement, signers_of, statement_of  # noqa: E402
from edge_cmcl.bundle.trust import Trust, owning, trusting  # noqa: E402
from edge_cmcl.data import open_pairs, write_pairs  # noqa: E402
from edge_cmcl.errors import SignatureError  # noqa: E402
from edge_cmcl.project import load_project, template  # noqa: E402

_DIGEST = "sha256:" + 64 * "a"
_TOML = (
    b"[[",
    b"]]",
    b"[a.b]\n",
    b'"""',
    b"'''",
    b"\\u0000",
    b"= {",
    b"= [",
    b".a",
    b"1979-05-27",
    b"+inf",
    b"0x_",
    b"9",
)
_JSON = (b"{", b"[", b'"', b"\\ud800", b"1e999", b"NaN", b'"a":', b"9", b"true", b"\xef\xbb\xbf", b"\xff")


@cache
def _sample() -> Layout:
    return make_store(folder() / "sample")


@cache
def _current() -> Generation:
    return _sample().load("current").generation


def _manifest(data: bytes) -> None:
    manifest = from_json(Manifest, data, "the manifest")
    again = to_json(manifest)
    same("a manifest", from_json(Manifest, again, "the manifest again"), manifest)
    same("a manifest's bytes", to_json(from_json(Manifest, again, "again")), again)
    check_manifest(manifest, _current(), "the manifest")


def _manifests() -> list[bytes]:
    return [to_json(_sample().load(tag).manifest) for tag in ("current", "base")]


def _index(data: bytes) -> None:
    index = from_json(Index, data, "the index")
    again = to_json(index)
    same("an index", from_json(Index, again, "the index again"), index)
    same("an index's bytes", to_json(from_json(Index, again, "again")), again)
    for entry in index.manifests[:4]:
        moved = to_json(index.without_tag(entry.tag).with_tag("moved", entry))
        same("a tag that moved", from_json(Index, moved, "moved").manifests[-1].tag, "moved")


def _indexes() -> list[bytes]:
    return [(_sample().root / "index.json").read_bytes(), to_json(Index.of())]


def _state(data: bytes) -> None:
    state = state_from_json(_resealed(data), "state.json")
    same("a state", state_from_json(state_to_json(state), "again"), state)


def _resealed(data: bytes) -> bytes:
    """Return an object with the checksum that it needs to be believed; anything else, and one in eight, as it is."""
    with suppress(ValueError, RecursionError):
        fields = json.loads(data)
        if isinstance(fields, dict) and len(data) % 8:
            fields.pop("check", None)
            return dumped({**fields, "check": digest_of(dumped(fields))})
    return data


def _states() -> list[bytes]:
    now = "2026-01-02T03:04:05Z"
    full = State(
        device_id="device-1",
        highest_counter=7,
        trial=Trial(digest=_DIGEST, previous=_DIGEST, since=now),
        reverted=Reverted(digest=_DIGEST, since=now, reason="golden windows"),
        unsigned=(_DIGEST,),
        sync=SyncState(remote="r", sent=(_DIGEST,), declined=(Declined(digest=_DIGEST, since=now),)),
    )
    return [state_to_json(full), state_to_json(State())]


def _generation(data: bytes) -> None:
    generation = generation_from_json(data, "the generation")
    same("a generation", to_json(generation), data)
    pieces = {digest: [(digest, 1)] for _, _, digest in generation.blobs()}
    layers_of(generation, pieces)
    same("a generation's object", from_json(Generation, data, "again"), generation)


def _generations() -> list[bytes]:
    return [to_json(_sample().load(tag).generation) for tag in ("current", "base")]


_READERS = {
    "adapter": (payloads.adapter_from_bytes, payloads.adapter_to_bytes),
    "sketch": (payloads.sketch_from_bytes, payloads.sketch_to_bytes),
    "golden": (payloads.golden_from_bytes, payloads.golden_to_bytes),
    "labels": (payloads.labels_from_bytes, payloads.labels_to_bytes),
}


def _payload(data: bytes) -> None:
    """Read a payload as what it says it is; what is accepted gives, written and read again, the same bytes."""
    kind = next((kind for kind in _READERS if b'kind\\":\\"' + kind.encode() in data), "adapter")
    read, write = _READERS[kind]
    again = write(read(data))  # type: ignore[operator]
    same(f"a payload {kind}", write(read(again)), again)  # type: ignore[operator]


def _payloads() -> list[bytes]:
    return [
        payloads.adapter_to_bytes(make_adapter(1)),
        payloads.adapter_to_bytes(make_adapter(1, 8, text=True)),
        payloads.sketch_to_bytes(make_origin("acc")),
        payloads.golden_to_bytes(make_golden()),
        payloads.labels_to_bytes(make_labels()),
    ]


def _tensors(data: bytes) -> None:
    found = tensors.from_bytes(data)
    again = tensors.from_bytes(tensors.to_bytes(found))
    for name, array in found.items():
        same("the layout of a tensor", (again[name].shape, again[name].dtype), (array.shape, array.dtype))
        same("the bytes of a tensor", again[name].tobytes(), array.tobytes())


def _pairs(data: bytes) -> None:
    """Open a pairs file and read all of it; what is accepted can be written, and is the same then."""
    with open_pairs(written("pairs.safetensors", data)) as pairs:
        for modality in pairs.modalities:
            windows = pairs.read(modality)
            same("the shape of windows", windows.shape, (pairs.n, *pairs.shape(modality)))
            same("finite windows", bool(np.isfinite(windows).all()), True)
            pairs.valid(modality)
        pairs.longest_window_s(pairs.modalities)


def _pairs_files() -> list[bytes]:
    random = np.random.default_rng(0)
    windows = {
        "acc": random.standard_normal((3, 16, 2), np.float32),
        "depth": random.standard_normal((3, 16, 2, 2), np.float32),
    }
    full, bare = folder() / "full.safetensors", folder() / "bare.safetensors"
    write_pairs(
        full,
        windows,
        labels=[0, 1, -1],
        label_names=["walk", "läuft"],
        groups=[0, 0, 1],
        time=[0.0, 1.0, 0.5],
        valid={"acc": [True, False, True]},
        rate_hz={"acc": 50.0},
        units={"acc": "g"},
        source="fuzz",
    )
    write_pairs(bare, {"acc": windows["acc"]})
    return [full.read_bytes(), bare.read_bytes()]


def _project(data: bytes) -> None:
    project = load_project(written("edge-cmcl.toml", data))
    project.missing_files()
    fields = project.model_dump()
    same("a project", type(project).model_validate(fields).model_dump(), fields)


def _projects() -> list[bytes]:
    small = (
        'name = "a"\n[modality.x]\nframe = [6, 8]\nrate_hz = 50\nwindow_s = 2.5\nencoder = "onnx:m.onnx"\n'
        '[[pair]]\nmodalities = ["x", "text"]\ntrain = ["a.safetensors"]\n[train]\nepochs = 3\n'
    )
    return [template().encode(), small.encode()]


@cache
def stream_reader() -> Callable[[Path], object]:
    """Return the reader of stream files; its room imports torch."""
    from edge_cmcl.host.compare.stream import load_stream

    return load_stream


def _stream(data: bytes) -> None:
    stream_reader()(written("stream.toml", data))


def _streams() -> list[bytes]:
    stream_reader()
    written("here", b"")
    step = '[[step]]\nname = "{0}"\nmodalities = ["acc", "text"]\ntrain = "here"\ntest = "here"\n'
    return [('name = "s"\nwidth = 1800\n' + step.format("one") + step.format("two")).encode()]


def _tar(data: bytes) -> None:
    """Walk a tar; what Python's own reader makes of an accepted one must be the same, or two tools see two bundles."""
    found = {path: b"".join(chunks) for path, _, chunks in tarball.members(io.BytesIO(data), "the tar")}
    with suppress(tarfile.ReadError), tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
        files = [member for member in tar.getmembers() if member.isfile()]
        theirs = {member.name.removeprefix("./"): tar.extractfile(member) for member in files}
        same("the files of a tar", {name: file and file.read() for name, file in theirs.items()}, found)


def _tars() -> list[bytes]:
    own = io.BytesIO()
    for name in ("oci-layout", "index.json", "blobs/sha256/" + 64 * "0", "blobs/sha256/" + 64 * "1"):
        tarball.write_member(own, name, 700, [b"a" * 700])
    tarball.write_end(own)
    return [own.getvalue(), *(_foreign_tar(form) for form in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT))]


def _foreign_tar(form: int) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as tar:
        for name in ("blobs", "oci-layout", "./index.json", "blobs/sha256/" + 64 * "0"):
            info = tarfile.TarInfo(name)
            info.mtime = 0.5  # type: ignore[assignment]
            info.type, info.size = (tarfile.DIRTYPE, 0) if name == "blobs" else (tarfile.REGTYPE, 2)
            tar.addfile(info, io.BytesIO(b"{}"))
    return out.getvalue()


def _layout(data: bytes) -> None:
    written("oci-layout", data)
    Layout(folder())
    same("an accepted layout", parse(data, "oci-layout")["imageLayoutVersion"], "1.0.0")


def _lock(data: bytes) -> None:
    """Show the owner of a held lock, whatever stands in its file."""
    path = written("lock", data)
    with path.open("rb") as holder:
        fcntl.flock(holder, fcntl.LOCK_EX)
        with locked(folder()):
            raise ViolationError("a held lock was taken")


def _locks() -> list[bytes]:
    return [json.dumps({"pid": os.getpid(), "command": "edge-cmcl update", "since": "2026-01-02T03:04:05Z"}).encode()]


@cache
def _signer() -> PrivateKey:
    """Return one key for all inputs: they replay from run to run."""
    return PrivateKey(Ed25519PrivateKey.from_private_bytes(bytes(32)))


def _dsse(data: bytes) -> None:
    """Verify a signed statement; only the one that was signed may be taken for it, in whatever spelling it comes."""
    envelope = envelope_from_json(data, "the envelope")
    again = to_json(envelope)
    same("an envelope", envelope_from_json(again, "again"), envelope)
    wanted = statement_of(_sample().load("current"))
    signers = signers_of(envelope, {_signer().public.fingerprint: _signer().public}, "the envelope")
    check_statement(envelope, wanted, "the envelope")
    if not signers:
        raise SignatureError("nobody known has signed it")
    same("what is signed", (envelope.payload_type, envelope.body("it")), (STATEMENT, wanted))


def _envelopes() -> list[bytes]:
    return [to_json(sign(STATEMENT, statement_of(_sample().load("current")), [_signer()]))]


def _signature_keys(data: bytes) -> None:
    keys = from_json(Keys, data, "the keys")
    for text in keys.keys:
        same("a key", decode_key(decode_key(text, "a key").encoded(), "a key"), decode_key(text, "a key"))
    for rotation in keys.rotations:
        endorsed(rotation, {_signer().public.fingerprint: _signer().public})


def _key_documents() -> list[bytes]:
    rotation = endorsement(_signer(), PublicKey(bytes(31) + b"\1"))
    return [to_json(Keys(keys=(_signer().public.encoded(),), rotations=(rotation,)))]


def _trust(data: bytes) -> None:
    """Take the bytes as they are or with the checksum that they need to be believed."""
    trust = unsealed(Trust, _resealed(data), "trust.json", "")
    same("the keys", unsealed(Trust, sealed(trust), "again", ""), trust)
    for fingerprint, key in trust.public().items():
        same("a fingerprint", key.fingerprint, fingerprint)


def _trusts() -> list[bytes]:
    now = "2026-01-02T03:04:05Z"
    given, next_key = PublicKey(bytes(31) + b"\1"), _signer().public
    trust = trusting(owning(Trust(), next_key, now, endorsement(_signer(), next_key)), given, now)
    return [sealed(trust), sealed(Trust())]


def _pem(data: bytes) -> None:
    """Read a key file as either half of a key; what is accepted is Ed25519 and the same when written again."""
    if b"PRIVATE" in data:
        private = private_key_from_pem(data, "the key")
        same("a private key", private_key_from_pem(private.to_pem(), "again").public, private.public)
    else:
        public = public_key_from_pem(data, "the key")
        same("a public key", public_key_from_pem(public.to_pem(), "again"), public)


_PEM = (
    b"-----BEGIN ",
    b"-----END ",
    b"PRIVATE KEY-----\n",
    b"EC ",
    b"RSA ",
    b"ENCRYPTED ",
    b"OPENSSH ",
    b"CERTIFICATE",
)


_json_mutations = (blind, in_json, in_json, in_json, words(*_JSON))
_tensor_mutations = (blind, in_safetensors, in_safetensors, in_safetensors)

TARGETS = {
    target.name: target
    for target in (
        Target("manifest", _manifest, _manifests, _json_mutations, (4,)),
        Target("index", _index, _indexes, _json_mutations, (4,)),
        Target("state", _state, _states, _json_mutations, (4,)),
        Target("generation", _generation, _generations, _json_mutations, (4,)),
        Target("layout", _layout, lambda: [canonical({"imageLayoutVersion": "1.0.0"})], _json_mutations, (4,)),
        Target("payload", _payload, _payloads, _tensor_mutations, (4,)),
        Target("tensors", _tensors, _payloads, _tensor_mutations, (3,)),
        Target("pairs", _pairs, _pairs_files, _tensor_mutations, (3,)),
        Target("project", _project, _projects, (blind, words(*_TOML)), (3,)),
        Target("stream", _stream, _streams, (blind, words(*_TOML)), (3,)),
        Target("tar", _tar, _tars, (blind, in_tar, in_tar), (4,)),
        Target("dsse", _dsse, _envelopes, (*_json_mutations, in_base64, in_base64), (4,)),
        Target("keys", _signature_keys, _key_documents, (*_json_mutations, in_base64), (4,)),
        Target("trust", _trust, _trusts, (*_json_mutations, in_base64), (4,)),
        Target("pem", _pem, lambda: [_signer().to_pem(), _signer().public.to_pem()], (blind, words(*_PEM)), (3,)),
        Target("lock", _lock, _locks, _json_mutations, (7,)),
        *FLEET_TARGETS,
        *BRIDGE_TARGETS,
    )
}
"""Every parser by name."""
