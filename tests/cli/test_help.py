from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

import edge_cmcl
from edge_cmcl.cli.app import app

ROOT = Path(__file__).parent.parent.parent


def commands(group: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{prefix}{name} ")
        else:
            yield f"{prefix}{name}", command


COMMANDS = dict(commands(get_command(app)))


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_says_what_it_does_and_what_each_of_its_parameters_is(name: str) -> None:
    command = COMMANDS[name]
    summary = command.help.partition("\n")[0]
    assert summary.endswith(".")
    assert len(summary) <= 64, "longer ones are cut in `edge-cmcl --help`"
    for parameter in command.params:
        assert parameter.help, parameter.name


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_takes_json(name: str) -> None:
    assert "--json" in [option for parameter in COMMANDS[name].params for option in parameter.opts]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_stands_in_the_readme(name: str) -> None:
    assert f"edge-cmcl {name}" in (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_every_command_is_printed_and_succeeds(run_cli: Any, name: str) -> None:
    shown = run_cli(*name.split(), "--help")
    assert (shown.code, shown.stderr) == (0, "")
    assert f"edge-cmcl {name}" in shown.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_every_command_ends_with_an_example_that_it_would_take(name: str) -> None:
    command = COMMANDS[name]
    start = f"Example: edge-cmcl {name}"
    assert command.epilog is not None
    assert command.epilog.startswith(start)
    context = command.make_context(name, shlex.split(command.epilog.removeprefix(start)))
    assert not context.args


def test_the_public_names_are_listed() -> None:
    assert set(dir(edge_cmcl)) == set(edge_cmcl.__all__)
    for name in dir(edge_cmcl):
        assert getattr(edge_cmcl, name) is not None
