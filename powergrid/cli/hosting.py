"""The command that finds how much can be added to a feeder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from powergrid.cli.evaluation import load_policies
from powergrid.cli.options import (
    DaySeedOption,
    Given,
    GoingOnOption,
    ProcessesOption,
    ScenarioArgument,
    counting,
    out,
    tell,
    this_command,
    with_options,
)


@with_options(without=["goal"])
def hosting(
    scenario: ScenarioArgument,
    policies: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[RUN|POLICY]...",
            help="Who controls; no_control, native, volt_var and rule_based if none is given.",
        ),
    ] = None,
    kind: Annotated[str, typer.Option(help="What is added: pv, storage, ev or load.")] = "pv",
    places: Annotated[
        list[str] | None,
        typer.Option(
            "--at", metavar="PLACE", help="uniform, end, random or BUS,BUS...; repeatable; all three if unset."
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Draws of random.")] = 3,
    share: Annotated[float, typer.Option(min=0.0, max=1.0, help="Part of the load buses that random draws.")] = 0.3,
    step_kw: Annotated[float | None, typer.Option("--step-kw", help="Step [kW].")] = None,
    most_kw: Annotated[
        float | None, typer.Option("--most-kw", help="Largest size [kW]; twice the demand if unset.")
    ] = None,
    limits: Annotated[
        list[str] | None,
        typer.Option(
            "--limit",
            metavar="NAME[=VALUE]",
            help="ansi_a, ansi_b, thermal, unbalance, reverse_power, voltage_step; repeatable.",
        ),
    ] = None,
    dates: Annotated[
        list[str] | None, typer.Option("--date", help="A day to look at, as 2018-06-21; repeatable.")
    ] = None,
    day_numbers: Annotated[
        list[int] | None, typer.Option("--day", help="The same by its number from the first of the profiles.")
    ] = None,
    days: Annotated[
        int, typer.Option(min=1, help="Days to look at: most sun over demand, peak demand, then others.")
    ] = 2,
    map_buses: Annotated[
        int, typer.Option("--map", min=0, metavar="N", help="Look at each load bus alone where there are up to N.")
    ] = 150,
    workers: ProcessesOption = None,
    seed: DaySeedOption = 0,
    out_dir: GoingOnOption = Path("hosting"),
    *,
    given: Given,
) -> None:
    """Find how much PV, storage, EV charging or load SCENARIO's feeder holds until a limit breaks that did not before.

    Under each control, by placement, with what breaks first and how much each limit allows: report.html with a map of
    the buses, and tables as Parquet, CSV and SQLite. What was stopped goes on where it was, in the same folder.
    """
    from powergrid.evaluation.hosting import HostingOptions, study_hosting
    from powergrid.evaluation.hosting.additions import PLACEMENTS
    from powergrid.evaluation.hosting.study import CONTROLS
    from powergrid.scenario import scenario_from_config

    chosen = scenario_from_config(given.env_config(scenario))
    options = HostingOptions(
        kind=kind,  # type: ignore[arg-type]  # the library says what is allowed
        placements=places or PLACEMENTS, seeds=seeds, share=share, step_kw=step_kw, most_kw=most_kw,
        limits=limits or (), dates=[*(dates or ()), *(day_numbers or ())], days=days, map_buses=map_buses,
    )  # fmt: skip
    with counting("sweeps") as advance:
        found = study_hosting(
            chosen, load_policies(policies or CONTROLS, chosen), out_dir, options, seed=seed,
            workers=workers or os.cpu_count() or 1, command=this_command(), progress=advance,
        )  # fmt: skip
    out.print(found.table())
    out.print(found.cause_table())
    tell(out_dir / "report.html")
