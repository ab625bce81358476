"""Envelopes as DSSE has them: its own vector, and another implementation of it as a second opinion."""

from __future__ import annotations

import json
import shutil
import subprocess
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from securesystemslib.dsse import Envelope as OtherEnvelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import CryptoSigner, SSlibKey

from edge_cmcl.bundle.documents import to_json
from edge_cmcl.bundle.envelope import envelope_from_json, pae, sign
from edge_cmcl.bundle.keys import PrivateKey, PublicKey, private_key_from_pem, public_key_from_pem
from edge_cmcl.bundle.statement import signers_of
from edge_cmcl.errors import FormatError, ModelError, SignatureError

KIND, BODY = "http://example.com/HelloWorld", b"hello world"


@pytest.fixture(scope="module")
def keys() -> tuple[PrivateKey, PrivateKey]:
    return PrivateKey.generate(), PrivateKey.generate()


def public(*keys: PrivateKey) -> dict[str, PublicKey]:
    return {key.public.fingerprint: key.public for key in keys}


def test_what_is_signed_is_what_dsse_says() -> None:
    assert pae(KIND, BODY) == b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    assert pae("ü", b"") == b"DSSEv1 2 \xc3\xbc 0 "


def test_ed25519_is_that_of_rfc_8032() -> None:
    """Its second test vector: the seed within its PKCS 8 file, and the signature of the byte 72."""
    seed = bytes.fromhex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb")
    der = b64encode(bytes.fromhex("302e020100300506032b657004220420") + seed)
    pem = b"-----BEGIN PRIVATE KEY-----\n%s\n-----END PRIVATE KEY-----\n" % der
    key = private_key_from_pem(pem, "the vector")
    assert key.public.raw.hex() == "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c"
    signature = key.sign(b"\x72")
    assert signature.hex().startswith("92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da")
    assert key.public.verifies(signature, b"\x72")
    assert not key.public.verifies(signature, b"\x73")


def test_the_fingerprint_is_what_openssl_and_sha256sum_say(keys: tuple[PrivateKey, PrivateKey], tmp_path: Path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl here to compare with")
    (tmp_path / "key.pub").write_bytes(keys[0].public.to_pem())
    command = "openssl pkey -pubin -in key.pub -outform der | sha256sum"
    done = subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.split()[0] == keys[0].public.fingerprint


def test_another_implementation_verifies_our_envelopes(keys: tuple[PrivateKey, PrivateKey]) -> None:
    theirs = OtherEnvelope.from_dict(json.loads(to_json(sign(KIND, BODY, keys))))
    other_keys = [
        SSlibKey(key.public.fingerprint, "ed25519", "ed25519", {"public": key.public.raw.hex()}) for key in keys
    ]
    assert len(theirs.verify(other_keys, threshold=2)) == 2
    theirs.payload = b"hello worlds"
    with pytest.raises(VerificationError):
        theirs.verify(other_keys, threshold=1)


def test_we_verify_the_envelopes_of_another_implementation(keys: tuple[PrivateKey, PrivateKey]) -> None:
    private = load_pem_private_key(keys[0].to_pem(), None)
    known = SSlibKey(keys[0].public.fingerprint, "ed25519", "ed25519", {"public": keys[0].public.raw.hex()})
    theirs = OtherEnvelope(BODY, KIND, {})
    theirs.sign(CryptoSigner(private, known))
    ours = envelope_from_json(json.dumps(theirs.to_dict()).encode(), "theirs")
    assert signers_of(ours, public(*keys), "theirs") == (keys[0].public.fingerprint,)


def changed(keys: tuple[PrivateKey, ...], **update: Any) -> bytes:
    return json.dumps({**json.loads(to_json(sign(KIND, BODY, keys))), **update}).encode()


def test_unknown_fields_and_the_other_base64_alphabet_are_read_as_dsse_asks(
    keys: tuple[PrivateKey, PrivateKey],
) -> None:
    body = b"\xff\xfe\xfd?>"
    document = json.loads(to_json(sign(KIND, body, keys)))
    document["payload"] = document["payload"].replace("+", "-").replace("/", "_")
    document["signatures"][0]["sig"] = document["signatures"][0]["sig"].replace("+", "-").replace("/", "_")
    envelope = envelope_from_json(json.dumps({**document, "later": 1}).encode(), "it")
    assert len(signers_of(envelope, public(*keys), "it")) == 2


@pytest.mark.parametrize(
    ("update", "error"),
    [
        ({"payload": "aGVsbG8gd29ybGR"}, FormatError),  # no padding
        ({"payload": "aGVsbG8gd29ybG9="}, FormatError),  # bits beyond the end
        ({"payload": "aGVs bG8gd29ybGQ="}, FormatError),
        ({"payload": "aGVsbG8gd29ybGU="}, SignatureError),
        ({"payloadType": "http://example.com/HelloMars"}, SignatureError),
        ({"payloadType": ""}, FormatError),
        ({"signatures": []}, FormatError),
        ({"signatures": [{"sig": "AAAA"}]}, FormatError),
        ({"payload": 1}, FormatError),
        ({"payload": "A" * 70000}, FormatError),
    ],
    ids=str,
)
def test_a_changed_envelope_is_refused(
    keys: tuple[PrivateKey, PrivateKey], update: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        signers_of(envelope_from_json(changed(keys, **update), "it"), public(*keys), "it")


def test_signatures_are_checked_where_the_key_is_known_and_count_nothing_where_it_is_not(
    keys: tuple[PrivateKey, PrivateKey],
) -> None:
    first, second = keys
    both = sign(KIND, BODY, keys)
    assert signers_of(both, public(second), "it") == (second.public.fingerprint,)
    assert signers_of(both, {}, "it") == ()
    swapped = [{"keyid": a.keyid, "sig": b.sig} for a, b in zip(both.signatures, both.signatures[::-1], strict=True)]
    envelope = envelope_from_json(changed(keys, signatures=swapped), "it")
    with pytest.raises(SignatureError, match="wrong"):
        signers_of(envelope, public(first), "it")
    twice = [both.signatures[0].model_dump()] * 2
    with pytest.raises(FormatError, match="breaks its format"):
        envelope_from_json(changed(keys, signatures=twice), "it")
    nine = sign(KIND, BODY, [first]).signatures[0].model_dump()
    many = [{**nine, "keyid": f"{i:064x}"} for i in range(9)]
    with pytest.raises(FormatError, match="breaks its format"):
        envelope_from_json(changed(keys, signatures=many), "it")


@pytest.mark.parametrize("kind", ["rsa", "nothing", "public"])
def test_a_file_that_is_no_private_key_of_ours_is_refused_without_its_content(
    keys: tuple[PrivateKey, PrivateKey], kind: str
) -> None:
    pkcs8 = (Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    data = {
        "rsa": lambda: rsa.generate_private_key(65537, 2048).private_bytes(*pkcs8),
        "nothing": lambda: b"-----BEGIN PRIVATE KEY-----\nsecretsecret\n-----END PRIVATE KEY-----\n",
        "public": keys[0].public.to_pem,
    }[kind]()
    with pytest.raises(ModelError) as caught:
        private_key_from_pem(data, "key.pem")
    assert data.splitlines()[1].decode() not in str(caught.value)
    if kind != "public":
        with pytest.raises(ModelError, match="not a public key"):
            public_key_from_pem(data, "key.pem")


def test_a_private_key_does_not_show_itself(keys: tuple[PrivateKey, PrivateKey]) -> None:
    secret = keys[0].to_pem().splitlines()[1].decode()
    assert secret not in repr(keys[0]) + str(keys[0])
    assert repr(keys[0]) == "PrivateKey()"
