from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_cmcl.bundle.canonical import canonical, parse
from edge_cmcl.bundle.limits import MAX_DEPTH, MAX_INTEGER
from edge_cmcl.errors import FormatError

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-MAX_INTEGER, MAX_INTEGER)
    | st.floats(allow_nan=False, allow_infinity=False)
)
DOCUMENTS = st.recursive(
    SCALARS | TEXT, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4)
)


@given(DOCUMENTS)
def test_canonical_json_reads_back_as_itself_and_is_a_fixed_point(document: Any) -> None:
    data = canonical(document)
    assert parse(data, "it") == document
    assert canonical(parse(data, "it")) == data


@given(st.dictionaries(TEXT, SCALARS, min_size=2, max_size=6))
def test_canonical_json_does_not_depend_on_the_order_of_keys(document: dict[str, Any]) -> None:
    assert canonical(dict(reversed(document.items()))) == canonical(document)


def test_canonical_json_is_this_text_for_ever() -> None:
    document = {"b": [1, 1.0, 1e22, 1e-7, -0.0, None, True], "a": 'é"\n', "Z": {}}
    assert canonical(document) == '{"Z":{},"a":"é\\"\\n","b":[1,1.0,1e+22,1e-07,-0.0,null,true]}'.encode()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1, 2}, b"bytes", "\ud800"])
def test_what_is_not_json_is_not_written(value: Any) -> None:
    with pytest.raises(FormatError):
        canonical({"value": value})


@pytest.mark.parametrize(
    "data",
    [
        b'{"a":1,"a":2}',
        b'{"a":{"b":1,"b":1}}',
        b"[NaN]",
        b"[Infinity]",
        b"[-Infinity]",
        b"[1e999]",
        b"[9007199254740992]",
        b"[-9007199254740992]",
        b"[" + b"9" * 5000 + b"]",
        b"[" * (MAX_DEPTH + 2) + b"]" * (MAX_DEPTH + 2),
        b"[" * 100_000 + b"]" * 100_000,
        b'{"a":' * 100_000,
        b"\xff\xfe",
        b"",
        b"{",
        b"{} {}",
        b'{"a":1,}',
        b"\xef\xbb\xbf{}",
    ],
)
def test_what_parsers_disagree_about_is_refused(data: bytes) -> None:
    with pytest.raises(FormatError) as caught:
        parse(data, "the document")
    assert "the document" in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_the_deepest_allowed_document_is_read() -> None:
    data = b"[" * MAX_DEPTH + b"]" * MAX_DEPTH
    assert canonical(parse(data, "it")) == data


def test_a_document_beyond_the_limit_is_refused_unparsed() -> None:
    with pytest.raises(FormatError, match="too large"):
        parse(b" " * 101, "it", 100)


def test_canonical_json_is_the_same_in_another_process() -> None:
    document = {name: index / 7 for index, name in enumerate(["hello", "world", "of", "keys"])}
    code = (
        "import json, sys; from edge_cmcl.bundle.canonical import canonical;"
        "print(canonical(json.load(sys.stdin)).hex())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], input=json.dumps(document), capture_output=True, text=True, check=True
    )
    assert bytes.fromhex(done.stdout) == canonical(document)
