"""The commands that report for who has to sign: on days of a split, on a year, under stresses, on what can be added."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from powergrid.cli.evaluation import load_policies
from powergrid.cli.options import (
    AgainstOption,
    DaySeedOption,
    DaysOption,
    FilesOption,
    GivenWithPolicies,
    GoingOnOption,
    PlayedArgument,
    PlayersArgument,
    ProcessesOption,
    ScenarioArgument,
    SplitOption,
    counting,
    out,
    read_played,
    tell,
    tell_verdicts,
    this_command,
    with_options,
)
from powergrid.cli.replay import say_seen


@with_options()
def report(
    policies: PlayersArgument = None,
    *,
    scenario: PlayedArgument,
    against: AgainstOption = None,
    days: DaysOption = 30,
    split: SplitOption = "test",
    replays: Annotated[int, typer.Option(min=0, help="Worst days that are replayed, each a page beside it.")] = 3,
    seed: DaySeedOption = 0,
    out_dir: FilesOption = Path("report"),
    given: GivenWithPolicies,
) -> None:
    """Report on policies beside the feeder's own controls and engineers' rules: a page, and a CSV of each table."""
    from powergrid.evaluation.replay import record_day
    from powergrid.evaluation.replay.page import write_page
    from powergrid.evaluation.studies.report import AGAINST, report_days
    from powergrid.grid.profiles.profiles import pick_days, split_days

    policies, chosen, players = _read_players("powergrid report", policies, scenario, given)
    profiles = chosen.read_profiles()
    notes = say_seen(policies, players, profiles, pick_days(split_days(profiles, split=split), days).tolist())
    with counting("playing") as advance:
        found = report_days(
            chosen, players, against=against or AGAINST, split=split, days=days, seed=seed, notes=notes,
            command=this_command(), progress=advance,
        )  # fmt: skip
    links = {date: f"days/{date}.html" for date in found.worst_days(replays)}
    everybody = [*players, *found.against]
    with counting("replaying") as advance:
        for done, (date, page) in enumerate(links.items(), 1):
            write_page(record_day(chosen, everybody, date, seed=seed), out_dir / page)
            advance(done, len(links))
    found = replace(found, links=links)
    tell_verdicts(found.verdicts())
    for file in found.write(out_dir)[:1]:
        tell(file)


@with_options()
def study(
    policies: Annotated[
        list[str] | None,
        typer.Argument(metavar="RUN|POLICY...", help="Whom it is about, then whom to compare it with."),
    ] = None,
    *,
    scenario: PlayedArgument,
    begin: Annotated[
        str | None, typer.Option("--from", metavar="DATE", help="First day; that of the profiles.")
    ] = None,
    end: Annotated[str | None, typer.Option("--to", metavar="DATE", help="Last day; the profiles'.")] = None,
    workers: ProcessesOption = None,
    seed: DaySeedOption = 0,
    out_dir: GoingOnOption = Path("study"),
    given: GivenWithPolicies,
) -> None:
    """Play a year of SCENARIO, or any span, with several policies: report.html, and tables as Parquet, CSV and SQLite.

    A study that was stopped goes on where it was, in the same folder.
    """
    from powergrid.evaluation.studies.year import find_days, study_year

    policies, chosen, players = _read_players("powergrid study", policies, scenario, given)
    profiles = chosen.read_profiles()
    notes = say_seen(policies, players, profiles, find_days(profiles, begin, end))
    with counting("days") as advance:
        found = study_year(
            chosen, players, out_dir, begin=begin, end=end, seed=seed, workers=workers or os.cpu_count() or 1,
            notes=notes, command=this_command(), progress=advance,
        )  # fmt: skip
    tell_verdicts(found.verdicts())
    tell(out_dir / "report.html")


@with_options()
def stress(
    policies: PlayersArgument = None,
    *,
    scenario: PlayedArgument,
    stresses: Annotated[
        list[str] | None,
        typer.Option("--stress", metavar="NAME|FILE", help="This one, or those of a YAML file; repeatable; all."),
    ] = None,
    against: AgainstOption = None,
    days: DaysOption = 7,
    split: SplitOption = "test",
    workers: ProcessesOption = None,
    seed: DaySeedOption = 0,
    out_dir: FilesOption = Path("stress"),
    given: GivenWithPolicies,
) -> None:
    """Play policies on days of SCENARIO under stresses, without training: more load, a line out, wrong lines, clouds.

    A matrix of policies and stresses: a page, and tables as CSV and Parquet.
    """
    from powergrid.evaluation.stresses.play import stress_days
    from powergrid.evaluation.stresses.spec import find_stresses
    from powergrid.evaluation.studies.report import AGAINST
    from powergrid.grid.profiles.profiles import pick_days, split_days

    chosen = find_stresses(stresses or None)
    policies, played, players = _read_players("powergrid stress", policies, scenario, given)
    profiles = played.read_profiles()
    notes = say_seen(policies, players, profiles, pick_days(split_days(profiles, split=split), days).tolist())
    with counting("playing") as advance:
        found = stress_days(
            played, players, chosen, against=against or AGAINST, split=split, days=days, seed=seed,
            workers=workers or os.cpu_count() or 1, notes=notes, command=this_command(),
            progress=advance,
        )  # fmt: skip
    out.print(found.table())
    tell_verdicts(found.verdicts())
    for file in found.write(out_dir)[:1]:
        tell(file)


@with_options(without=["goal", "view"])
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
    given: GivenWithPolicies,
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
    players = load_policies(policies or CONTROLS, chosen, trust=given.trust_checkpoint)
    options = HostingOptions(
        kind=kind,  # type: ignore[arg-type]  # the library says what is allowed
        placements=places or PLACEMENTS, seeds=seeds, share=share, step_kw=step_kw, most_kw=most_kw,
        limits=limits or (), dates=[*(dates or ()), *(day_numbers or ())], days=days, map_buses=map_buses,
    )  # fmt: skip
    with counting("sweeps") as advance:
        found = study_hosting(
            chosen, players, out_dir, options, seed=seed, workers=workers or os.cpu_count() or 1,
            command=this_command(), progress=advance,
        )  # fmt: skip
    out.print(found.table())
    out.print(found.cause_table())
    tell(out_dir / "report.html")


def _read_players(
    command: str, policies: Sequence[str] | None, scenario: str, given: GivenWithPolicies
) -> tuple[list[str], Any, list[Any]]:
    """Return who plays as named, the scenario that they play, and themselves."""
    from powergrid.scenario import scenario_from_config

    named, env_config = read_played(command, policies, scenario, given)
    chosen = scenario_from_config(env_config)
    return named, chosen, load_policies(named, chosen, given.view, given.trust_checkpoint)
