"""Write docs/cli.md from the commands of ``powergrid``: what their ``--help`` says, as tables."""

from __future__ import annotations

import argparse
import inspect
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import typer
from typer.models import ArgumentInfo, OptionInfo

from powergrid.cli import app

PAGE = Path(__file__).resolve().parents[1] / "docs" / "cli.md"
TYPES = {bool: "", str: "text", Path: "path", int: "whole number", float: "number"}
HEAD = """# Command line

The commands and their options, as `powergrid --help` and the help of each command have them. `SCENARIO` is the name of
a shipped scenario, the path of a scenario file, the name of a shipped feeder or the path of its master file.

The exit status is 0 where a command did what it was asked, 1 after an error, which is told in one block, and 2 where
the command line itself is wrong; `check` has [its own](check.md). `powergrid --version` tells the version.

This page is made by `scripts/make_cli_page.py`; a test keeps it in step.
"""
Info = ArgumentInfo | OptionInfo


def walk_commands(group: typer.Typer, words: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Callable[..., Any]]]:
    """Return the function of every command below a group, with the words that call it."""
    for command in group.registered_commands:
        function = command.callback
        if function is not None and not command.hidden:
            yield (*words, command.name or function.__name__.replace("_", "-")), function
    for below in group.registered_groups:
        if below.typer_instance is not None:
            yield from walk_commands(below.typer_instance, (*words, str(below.name or below.typer_instance.info.name)))


def list_parameters(function: Callable[..., Any]) -> Iterator[tuple[str, Info, type, Any]]:
    """Return name, description, type and default (``...`` if it has none) of what a command takes."""
    hints = get_type_hints(function, include_extras=True)
    for name, parameter in inspect.signature(function).parameters.items():
        annotation, default = hints[name], parameter.default
        info = next((each for each in get_args(annotation) if isinstance(each, Info)), None)
        if get_origin(annotation) is Annotated:
            annotation = get_args(annotation)[0]
        if get_origin(annotation) in (Union, types.UnionType):
            annotation = next(each for each in get_args(annotation) if each is not type(None))
        if get_origin(annotation) is list:
            annotation = get_args(annotation)[0]
        required = default is inspect.Parameter.empty
        yield name, info or (ArgumentInfo() if required else OptionInfo()), annotation, ... if required else default


def describe_value(info: Info, kind: type) -> str:
    """Write what a parameter takes; nothing for a flag."""
    words = f"`{info.metavar}`" if info.metavar else TYPES[kind]
    low = f"at least {info.min:g}" if info.min is not None else ""
    high = f"at most {info.max:g}" if info.max is not None else ""
    return ", ".join(part for part in (words, low, high) if part)


def describe_default(default: Any) -> str:
    """Write what holds where a parameter is not given."""
    if default is ...:
        return "required"
    return "" if default is None or default is False else f"`{default}`"


def describe_command(words: tuple[str, ...], function: Callable[..., Any]) -> str:
    """Write a command's section."""
    rows, usage, options = ["| | value | default | meaning |", "|---|---|---|---|"], list(words), 0
    for name, info, kind, default in list_parameters(function):
        if isinstance(info, ArgumentInfo):
            shown = [name.upper()]
            usage.append(name.upper() if default is ... else f"[{name.upper()}]")
        else:
            # Inside Annotated the first name stands where a default would.
            names = [each for each in (info.default, *(info.param_decls or ())) if isinstance(each, str)]
            shown, options = names or [f"--{name.replace('_', '-')}"], options + 1
        cells = (
            ", ".join(f"`{each}`" for each in shown),
            describe_value(info, kind),
            describe_default(default),
            info.help,
        )
        rows.append("| " + " | ".join((cell or "").replace("|", "\\|") for cell in cells) + " |")
    told = " ".join((inspect.getdoc(function) or "").split("\n\n")[0].split())
    usage += ["[OPTIONS]"] if options else []
    parts = [
        f"## {' '.join(words)}",
        told,
        f"```text\n{' '.join(usage)}\n```",
        "\n".join(rows) if len(rows) > 2 else "",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def make_page() -> str:
    """Write the page."""
    return "\n".join([HEAD, *(describe_command(*each) for each in walk_commands(app, ("powergrid",)))])


def main() -> int:
    """Write the page, or with ``--check`` only tell whether it is in sync."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; status 1 where the page is out of date")
    check = parser.parse_args().check
    new = make_page()
    old = PAGE.read_text(encoding="utf-8") if PAGE.is_file() else ""
    if not check:
        PAGE.write_text(new, encoding="utf-8")
    return int(check and new != old)


if __name__ == "__main__":
    sys.exit(main())
