"""Keys: `keys generate`, `keys trust`, `keys list`, `keys revoke`, `keys rotate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from edge_cmcl.cli.console import show, table
from edge_cmcl.cli.options import Json, Store, default_store, host_keys
from edge_cmcl.errors import UsageError

app = typer.Typer()
keys = typer.Typer(
    help="Keys that sign bundles, and those that are trusted.", no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(keys, name="keys")

Host = Annotated[bool, typer.Option("--host", help="Of this user's exports, instead of the device store.")]


@keys.command(epilog="Example: edge-cmcl keys generate --out base.key")
def generate(
    out: Annotated[
        Path | None, typer.Option("--out", help="A new private key file. [default: this user's own, for export]")
    ] = None,
    public: Annotated[
        Path | None, typer.Option("--public", help="Write the public key of this user's own there, for `keys trust`.")
    ] = None,
    json: Json = False,
) -> None:
    """Make a key that signs exports.

    `export` makes one for this user when it first needs it. With --out, the private key goes to that file (mode 0600),
    for `export --key`, and the public key beside it to FILE.pub, for `install --trust` and `keys trust`.
    """
    from edge_cmcl.bundle.keyring import generate_key_file, own_key, write_public

    if out is None:
        own = own_key(host_keys())[0].public
        text = f"exports are signed by {own.fingerprint}"
        if public is not None:
            write_public(own, public)
            text += f"\n{public}: for devices, `edge-cmcl keys trust {public}`"
        show({"fingerprint": own.fingerprint, "public": public}, text, json=json)
        return
    if public is not None:
        raise UsageError("--public is of this user's own key", expected="--out or --public", got="both")
    beside = Path(f"{out}.pub")
    fingerprint = generate_key_file(out, beside)
    text = f"{out}: private, keep it secret\n{beside}: for devices, --trust {beside}\nfingerprint {fingerprint}"
    show({"fingerprint": fingerprint, "private": out, "public": beside}, text, json=json)


@keys.command(epilog="Example: edge-cmcl keys trust base.key.pub")
def trust(
    file: Annotated[Path, typer.Argument(help="A public key file.")],
    restore: Annotated[bool, typer.Option("--restore", help="Even if it was revoked here.")] = False,
    store: Store = None,
    json: Json = False,
) -> None:
    """Let this device take bundles that a key has signed."""
    from edge_cmcl.bundle.keys import read_public_key
    from edge_cmcl.device.keys import trust as trust_key

    target, key = store or default_store(), read_public_key(file)
    trust_key(target, key, restore=restore)
    show({"store": target, "fingerprint": key.fingerprint}, f"{target} trusts {key.fingerprint}", json=json)


@keys.command("list", epilog="Example: edge-cmcl keys list")
def list_(store: Store = None, json: Json = False) -> None:
    """List the keys of this device, and those of this user."""
    from edge_cmcl.bundle import Layout
    from edge_cmcl.bundle.keyring import KeyRing
    from edge_cmcl.bundle.layout import LAYOUT_FILE
    from edge_cmcl.device.keys import listed
    from edge_cmcl.device.signing import keyring

    target = store or default_store()
    device = listed(keyring(Layout(target))) if store or (target / LAYOUT_FILE).is_file() else []
    host = listed(KeyRing(host_keys()))
    text = f"device, {target}\n{_rows(device)}\n\nthis user's exports\n{_rows(host)}"
    show({"store": target, "device": device, "host": host}, text, json=json)


@keys.command(epilog="Example: edge-cmcl keys revoke old.key.pub")
def revoke(
    key: Annotated[str, typer.Argument(help="A public key file, a fingerprint, or its first digits.")],
    store: Store = None,
    json: Json = False,
) -> None:
    """Let this device never again take what a key has signed."""
    from edge_cmcl.bundle import Store as BundleStore
    from edge_cmcl.device.keys import revoke as revoke_key

    target = store or default_store()
    fingerprint = revoke_key(BundleStore(target), key)
    show({"store": target, "fingerprint": fingerprint}, f"{target} has revoked {fingerprint}", json=json)


@keys.command(epilog="Example: edge-cmcl keys rotate --host")
def rotate(host: Host = False, store: Store = None, json: Json = False) -> None:
    """Replace the key that signs here; the old one endorses it.

    Devices that trust the old key of a host trust the new one as soon as they install a bundle signed with it. What the
    old key has signed still verifies; new bundles by it are refused. After a theft, revoke it on the devices, too.
    """
    from edge_cmcl.bundle.keyring import rotate_own_key
    from edge_cmcl.device.keys import rotate as rotate_key
    from edge_cmcl.device.store import open_store

    known, endorsed = rotate_own_key(host_keys()) if host else rotate_key(open_store(store or default_store()))
    note = "" if endorsed else "\nno key before it endorsed it: who trusted that one must be told to trust this one"
    show({"fingerprint": known.own, "endorsed": endorsed}, f"signs from now on: {known.own}{note}", json=json)


def _rows(found: list[dict[str, Any]]) -> str:
    rows = [
        ["signs" if each["signs"] else "", each["fingerprint"], each["role"], each["standing"], each["since"]]
        for each in found
    ]
    return table(["", "fingerprint", "whose", "standing", "since"], rows) if rows else "none"
