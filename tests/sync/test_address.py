from __future__ import annotations

from pathlib import Path

import pytest

from edge_cmcl.errors import UsageError
from edge_cmcl.sync.address import parse_address
from edge_cmcl.sync.connect import connect
from edge_cmcl.sync.settings import LinkSettings


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("oci://host.example/fleet/machine", ("oci", "host.example", None, "fleet/machine", "")),
        ("oci://127.0.0.1:5000/a_b/c--d", ("oci", "127.0.0.1", 5000, "a_b/c--d", "")),
        ("oci://[::1]:5000/x", ("oci", "::1", 5000, "x", "")),
        ("file:///media/usb%20stick", ("file", "", None, "/media/usb stick", "")),
        ("file://localhost/srv", ("file", "", None, "/srv", "")),
        ("ssh://me@host:2222/srv/fleet", ("ssh", "host", 2222, "/srv/fleet", "me")),
        ("ssh://host/~/fleet", ("ssh", "host", None, "/~/fleet", "")),
    ],
)
def test_an_address_has_these_parts(url: str, expected: tuple[str, str, int | None, str, str]) -> None:
    found = parse_address(url)
    assert (found.scheme, found.host, found.port, found.path, found.user) == expected
    assert found.url == url


@pytest.mark.parametrize(
    "url",
    [
        "",
        "host/x",
        "/media/usb",
        "http://host/x",
        "oci://host",
        "oci:///x",
        "oci://host/Upper",
        "oci://host/x:tag",
        "oci://host/../x",
        "oci://host:99999/x",
        "oci://me@host/x",
        "oci://host/x?y",
        "oci://host/x#y",
        "oci://ho st/x",
        "oci://host/x\n",
        "oci://host/" + "x" * 1000,
        "file://host/x",
        "file:relative",
        "file:///x%00y",
        "ssh://host",
        "ssh://-oProxyCommand=x/y",
        "ssh://a%20b@host/x",
    ],
)
def test_what_is_no_address_is_a_usage_error(url: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_address(url)
    assert caught.value.expected


@pytest.mark.parametrize("url", ["oci://me:s3cret@host/x", "ssh://me:s3cret@host/x", "http://me:s3cret@host/x"])
def test_a_password_in_an_address_is_refused_and_not_shown(url: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_address(url)
    assert "s3cret" not in str(caught.value)


def test_a_cap_of_nothing_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="lets nothing through"):
        connect(f"file://{tmp_path}", LinkSettings(bytes_per_s=0))
