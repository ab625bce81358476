"""`sync` and `fleet` as a user runs them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from worlds import LESSONS, World, fingerprint_of

from edge_cmcl.device.store import CURRENT

Cli = Callable[..., Any]


@pytest.fixture
def cli(run_cli: Cli, world: World, machine: Any) -> Cli:
    """Run a command in the folder of the fleet; the host signs with the key of the machine's bundle."""

    def run(*arguments: object, code: int = 0) -> Any:
        signed = (
            ["--key", machine.key]
            if arguments[:2] in (("fleet", "merge"), ("fleet", "promote"), ("fleet", "demote"))
            else []
        )
        where = ["--fleet", "fleet"] if arguments[0] == "fleet" else []
        done = run_cli(*arguments, *signed, *where, cwd=world.folder)
        assert done.code == code, done.stdout + done.stderr
        return done

    return run


@pytest.mark.slow
def test_the_loop_by_its_commands(cli: Cli, world: World) -> None:
    remote = f"file://{world.folder / 'remote'}"
    for name in LESSONS:
        shown = cli("sync", remote, "--show", "--json", "--store", name).json
        assert {each["there"] for each in shown["files"]} <= {False, True}
        assert cli("sync", remote, "--store", name).stdout.startswith("sent 2 generations")
    strangers = cli("fleet", "pull", remote, "--json").json["strangers"]
    assert strangers == {world.device(n).state().device_id: fingerprint_of(world.device(n)) for n in LESSONS}
    trust = [option for key in strangers.values() for option in ("--trust", key)]
    cli("fleet", "pull", *trust, "--trust", world.host.public.fingerprint)
    listed = cli("fleet", "list", "--json").json["devices"]
    assert {each["device_id"] for each in listed} == set(strangers)
    merged = cli("fleet", "merge", "--json").json
    assert (merged["counter"], merged["modalities"]["vibration"]["how"]) == (3, "fitted")
    assert "acoustic - vibration" in cli("fleet", "show", world.device("a").state().device_id[:8]).stdout
    cli("fleet", "promote", merged["digest"], "--trial", "--share", "1")
    for name in LESSONS:
        assert "trial: installed" in cli("sync", "--store", name).stdout
        status = cli("status", "--json", "--store", name).json
        assert (status["generation"], status["sync"]["unsent"]) == (merged["digest"], 0)
    pulled = cli("fleet", "pull", "--json").json
    assert len(pulled["news"]) == 2
    verdicts = cli("fleet", "show", listed[0]["device_id"], "--json").json["verdicts"]
    assert verdicts[merged["digest"]]["accepted"]
    cli("fleet", "demote", merged["digest"], "--all")
    assert "rolled back" in cli("sync", "--store", "a").stdout


def test_a_remote_that_is_away_is_exit_code_6_and_the_device_works_on(cli: Cli, world: World) -> None:
    before = world.device("a").tags()
    done = cli("sync", f"file://{world.folder / 'nowhere'}", "--json", "--patience", "0", "--store", "a", code=6)
    assert done.json["error"]["type"] == "RemoteError"
    done = cli("sync", "oci://127.0.0.1:9/x", "--plain-http", "--json", "--patience", "0", "--store", "a", code=6)
    assert done.json["error"]["to_do"]
    assert world.device("a").tags() == before
    assert cli("status", "--json", "--store", "a").json["generation"] == before[CURRENT]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("sync", "--store", "a"), 2),  # with whom?
        (("sync", "ftp://host/x", "--store", "a"), 2),
        (("sync", "oci://user:secret@host/x", "--store", "a"), 2),
        (("fleet", "list"), 3),  # no fleet yet
        (("fleet", "pull"), 2),
        (("fleet", "promote", "current"), 3),
    ],
)
def test_what_cannot_be_done_is_said(cli: Cli, arguments: tuple[str, ...], code: int) -> None:
    done = cli(*arguments, "--json", code=code)
    assert done.json["error"]["expected"]
    assert "secret" not in done.stdout + done.stderr


def test_a_decision_is_for_somebody(cli: Cli, world: World) -> None:
    world.sync("a")
    world.pull()
    device = world.device("a").state().device_id
    for options in ((), ("--all", "--share", "0.5"), ("--device", device, "--all")):
        assert "for whom" in cli("fleet", "promote", device, *options, "--json", code=2).json["error"]["message"]
    assert (
        "no device begins"
        in cli("fleet", "promote", device, "--device", "zz", "--json", code=3).json["error"]["message"]
    )
