"""The commands for profiles: make them of one's own measurements."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from powergrid.cli.options import (
    Given,
    ScenarioArgument,
    TrustOption,
    VerboseOption,
    log_to_console,
    parse_overrides,
    tell,
    with_options,
)

ReportOption = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Write the data report here too, as .html or .txt.")
]

app = typer.Typer(help="Make profiles of your own measurements.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Make profiles of your own measurements."""


@app.command("import")
def import_tables(
    tables: Annotated[list[Path], typer.Argument(metavar="TABLE...", help="CSV, Parquet, Excel files, long or wide.")],
    feeder: Annotated[str, typer.Option(metavar="FEEDER", help="Feeder that loads are of, by name or master file.")],
    out_dir: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="Folder for profiles.source of a scenario; made or replaced.")
    ],
    column_map: Annotated[
        Path | None, typer.Option("--map", metavar="FILE", help="What the columns are, as YAML; found by name without.")
    ] = None,
    unit: Annotated[
        str | None, typer.Option(metavar="UNIT", help="Unit of demand where columns do not say it: kW, kWh, A, ...")
    ] = None,
    zone: Annotated[
        str | None, typer.Option(metavar="ZONE", help="Time zone, as America/New_York; standard: clocks never change.")
    ] = None,
    decimal: Annotated[
        str | None, typer.Option(metavar="SIGN", help="Decimal sign of numbers where they do not tell: . or ,")
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override a key of the map, a.b=value in YAML; repeatable."),
    ] = None,
    model_root: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder that no file of the feeder is read outside of.")
    ] = None,
    trust: TrustOption = False,
    report: ReportOption = None,
    verbose: VerboseOption = False,
) -> None:
    """Make profiles of measured TABLEs for a feeder, played exactly as measured, and report on the data."""
    log_to_console(verbose)
    keys = parse_overrides(overrides or [])
    if zone is not None:
        time = keys.get("time")
        keys["time"] = {**(time if isinstance(time, dict) else {}), "zone": zone}
    keys |= {key: value for key, value in (("unit", unit), ("decimal", decimal)) if value is not None}
    _check_ending(report)
    from powergrid.grid.feeder.feeder import read_feeder
    from powergrid.measurements import import_profiles
    from powergrid.measurements.vocabulary import read_map

    read = read_feeder(feeder, model_root=model_root, trust=trust)
    imported = import_profiles(tables, read, read_map(column_map, changes=keys))
    folder = imported.write(out_dir)
    if report is not None:
        imported.report.write(report)
    tell(imported.report.as_text().rstrip())
    tell(f"\nWritten: {folder}\nIn a scenario: profiles: {{source: {out_dir}, tariff: {imported.tariff}}}")


@app.command("report")
@with_options(without=["agents", "add_der", "goal"])
def report_data(
    scenario: ScenarioArgument,
    *,
    given: Given,
    report: ReportOption = None,
) -> None:
    """Report on the measured tables that SCENARIO names itself, with profiles.source and profiles.map."""
    _check_ending(report)
    from powergrid.scenario import scenario_from_config

    found = scenario_from_config(given.env_config(scenario)).import_measurements().report
    if report is not None:
        found.write(report)
    tell(found.as_text().rstrip())


def _check_ending(report: Path | None) -> None:
    if report is not None and report.suffix.lower() not in (".html", ".txt"):
        raise typer.BadParameter("--report ends with .html or .txt")
