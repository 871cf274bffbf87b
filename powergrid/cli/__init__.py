"""The ``powergrid`` command: train, evaluate, check, describe and more; every computation is in the library."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import typer
from rich.markup import escape

import powergrid
from powergrid.cli.advise import advise, serve
from powergrid.cli.benchmark import app as benchmark
from powergrid.cli.datasets import demonstrate, record
from powergrid.cli.evaluation import bench, curves, evaluate
from powergrid.cli.export import export
from powergrid.cli.feeders import check, describe, list_all
from powergrid.cli.optimum import optimum
from powergrid.cli.options import err, parse_overrides
from powergrid.cli.profiles import app as profiles
from powergrid.cli.replay import replay
from powergrid.cli.studies import hosting, report, stress, study
from powergrid.cli.training import train, tune
from powergrid.errors import PowerGridError

__all__ = ["app", "main", "parse_overrides"]

app = typer.Typer(
    name="powergrid",
    help="Train and evaluate reinforcement-learning agents on OpenDSS feeders.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,  # they print local variables: whole observations
    rich_markup_mode=None,  # [pu] and [h] in a docstring are units
)

# Commands import the library when they run: --version and --help shall not wait for Ray.
app.command()(train)
app.command()(tune)
app.command()(demonstrate)
app.command()(record)
app.command()(export)
app.command()(evaluate)
app.command()(optimum)
app.command()(replay)
app.command()(report)
app.command()(study)
app.command()(hosting)
app.command()(advise)
app.command()(serve)
app.command()(stress)
app.command()(curves)
app.command("list")(list_all)
app.command()(check)
app.command()(describe)
app.command()(bench)
app.add_typer(profiles, name="profiles")
app.add_typer(benchmark, name="benchmark")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; a PowerGrid error is told in one block and ends with exit code 1."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        app(given, prog_name="powergrid")
    except PowerGridError as error:  # what is raised on purpose; anything else is a bug and keeps its traceback
        if {"--verbose", "--debug"} & set(given):
            raise
        _fail(f"{type(error).__name__}: {error}")
    except OSError as error:  # a disk that is full, a place that may not be written, and nobody said so before
        if error.errno is None or {"--verbose", "--debug"} & set(given):
            raise
        _fail(f"{error.filename or 'output'}: {error.strerror}")


def _fail(told: str) -> None:
    err.print(escape(told), highlight=False, soft_wrap=True, style="red")
    sys.exit(1)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"powergrid {powergrid.__version__}")
        raise typer.Exit()


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Train and evaluate reinforcement-learning agents on OpenDSS feeders."""
