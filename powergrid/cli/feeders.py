"""The commands that look at scenarios and feeders: list, check and describe."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from powergrid.cli.options import (
    Given,
    ScenarioArgument,
    SetOption,
    TrustOption,
    out,
    tell,
    with_options,
)

if TYPE_CHECKING:
    from powergrid.envs.describe import Description


def list_all() -> None:
    """List scenarios and feeders that come with PowerGrid, each with what it is, and what each baseline knows."""
    from powergrid.evaluation import BASELINES
    from powergrid.grid.feeder.feeder import find_feeder, list_feeders
    from powergrid.scenario import list_scenarios, load_scenario

    scenarios = {name: load_scenario(name).description for name in list_scenarios()}
    # the first line of a shipped master says what the feeder is
    masters = {name: find_feeder(name).read_text(encoding="utf-8") for name in list_feeders()}
    feeders = {name: text.partition("\n")[0].lstrip("! ") for name, text in masters.items()}
    baselines = {name: entry.knows for name, entry in BASELINES.items()}
    for title, told in (("scenarios", scenarios), ("feeders", feeders), ("baselines, by what they know", baselines)):
        out.print(f"{title}:", highlight=False)
        table = Table(box=None, show_header=False, padding=(0, 0, 0, 2))
        for name, what in told.items():
            table.add_row(escape(name), escape(what))
        out.print(table)


def check(
    feeder: Annotated[str, typer.Argument(help="Feeder name or master file.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole report as JSON.")] = False,
    model_root: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder that no file is read outside of.")
    ] = None,
    trust: TrustOption = False,
    ignore_case: Annotated[
        bool, typer.Option("--ignore-case", help="Let file names differ from those on the disk in letter case.")
    ] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Fail on warnings as on errors.")] = False,
    timeout: Annotated[float, typer.Option(min=1.0, metavar="SECONDS", help="When to give up.")] = 120.0,
) -> None:
    """Compile and solve FEEDER in a process of its own and report all that is wrong with it.

    Exit status: 0 usable, 1 errors (or warnings with --strict), 3 OpenDSS crashed or came to no end.
    """
    from powergrid.check import check_feeder
    from powergrid.check.report import report_lines

    # A feeder can crash the engine or never end: it is compiled in another process, and the status says which.
    report = check_feeder(feeder, model_root=model_root, trust=trust, ignore_case=ignore_case, timeout_s=timeout)
    if as_json:
        typer.echo(json.dumps(report.as_dict(), indent=2, ensure_ascii=False))
    else:
        for style, line in report_lines(report, width=min(out.width, 100) if out.is_terminal else 100):
            out.print(escape(line), style=style or None, highlight=False, soft_wrap=True)
    raise typer.Exit(report.exit_code(strict=strict))


WriteOption = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Write all of it as a scenario file to edit, as .yaml.")
]


@with_options(without=["overrides"])
def describe(
    scenario: ScenarioArgument,
    *,
    given: Given,
    write: WriteOption = None,
    draw: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw the one-line diagram, as .png or .svg.")
    ] = None,
    profile: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw voltages over distance, as .png or .svg.")
    ] = None,
    day: Annotated[int | None, typer.Option(min=0, help="Day to draw; the first of the split.")] = None,
    step: Annotated[
        int | None, typer.Option(min=0, help="Steps played without control before drawing; half the episode.")
    ] = None,
    overrides: SetOption = None,
    full: Annotated[bool, typer.Option("--full", help="Show every observation, action, reward term and info.")] = False,
) -> None:
    """Show SCENARIO's agents and devices, what counts and what moves each element; draw it, or write it as a file.

    Of a feeder, what is discovered on it; it is drawn as its model stands where nothing else is asked for.
    """
    env_config = given.env_config(scenario, overrides)
    if draw is not None or profile is not None:
        _draw(env_config, draw, profile, day, step)
        if write is None:
            return
    elif day is not None or step is not None:
        raise typer.BadParameter("--day and --step say what is drawn: give --draw FILE or --profile FILE too")
    from powergrid.envs import NetworkedGridEnv
    from powergrid.scenario import explain_config, write_scenario

    resolved, notes = explain_config(env_config)
    if write is not None:
        resolved.read_profiles()  # a source that is not there is told before anything is written
        tell(write_scenario(resolved, write, notes, keep_edited=True))
        return
    env = NetworkedGridEnv({"scenario": resolved})
    try:
        description = env.describe()
    finally:
        env.close()
    _show(description, full)
    if notes:
        out.print("\nfound and left out:", style="bold")
        out.print(_as_list(notes))


def _show(description: Description, full: bool) -> None:
    """Print the tables of a description, without those that have a row for each number unless all is asked for."""
    from powergrid.scenario.as_played import Played, summarise_played

    for field in (each for each in fields(description) if not each.name.startswith("_")):
        frame = getattr(description, field.name)
        if not full and field.name in ("actions", "observations", "infos"):
            continue
        if not full and field.name == "rewards":
            frame = frame[frame["weight"] != 0.0]
        if field.name == "as_played":  # thousands of elements in a few lines
            out.print("as played:", style="bold")
            out.print(_as_list(summarise_played([Played(*row) for row in frame.itertuples(index=False)])))
        elif len(frame) or field.name != "placement":
            out.print(_as_table(field.name, frame))


def _draw(
    env_config: Mapping[str, Any], diagram: Path | None, profile: Path | None, day: int | None, step: int | None
) -> None:
    """Write the pictures of a scenario, or of a bare feeder as its model stands."""
    from powergrid.evaluation import drawing
    from powergrid.grid.feeder.feeder import list_feeders

    for file in (diagram, profile):  # before the minutes that a large feeder takes to be solved and laid out
        if file is not None:
            drawing.check_suffix(file)
    reference = str(env_config["env_name"])
    if env_config.keys() <= {"env_name", "trust"} and (
        reference in list_feeders() or reference.lower().endswith(".dss")
    ):
        if day is not None or step is not None:
            raise typer.BadParameter(
                "a bare feeder is drawn as its model stands; for a day of what is discovered on it give --agents too"
            )
        state = drawing.look_at_feeder(reference, trust="trust" in env_config)
    else:
        state = drawing.look_at_scenario(env_config, day=day, step=step)
    for file, make in ((diagram, drawing.draw_network), (profile, drawing.draw_voltage_profile)):
        if file is not None:
            tell(drawing.save(make(state), file))


def _as_list(lines: Iterable[str]) -> Table:
    """Show lines as a list; what does not fit into one goes on below its beginning."""
    table = Table.grid(padding=(0, 1, 0, 1))
    for line in lines:
        table.add_row("-", escape(line))
    return table


def _as_table(title: str, frame: Any) -> Table:
    """Show a pandas table: numbers short, nothing cut."""
    table = Table(title=title, title_justify="left", box=None, header_style="bold")
    for column in frame.columns:
        table.add_column(str(column), overflow="fold")
    for row in frame.itertuples(index=False):
        table.add_row(*(f"{cell:g}" if isinstance(cell, float) else escape(str(cell)) for cell in row))
    return table
