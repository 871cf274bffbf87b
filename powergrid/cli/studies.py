"""The commands that report on policies for who has to sign: on days of a split, on a year, under stresses."""

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
    Given,
    GoingOnOption,
    PlayedArgument,
    PlayersArgument,
    ProcessesOption,
    SplitOption,
    TrustFilesOption,
    ViewOption,
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
    view: ViewOption = "agents",
    trust_checkpoint: TrustFilesOption = False,
    given: Given,
) -> None:
    """Report on policies beside the feeder's own controls and engineers' rules: a page, and a CSV of each table."""
    from powergrid.evaluation.replay import record_day
    from powergrid.evaluation.replay.page import write_page
    from powergrid.evaluation.rollout import pick_days
    from powergrid.evaluation.studies.report import AGAINST, report_days
    from powergrid.grid.profiles.profiles import split_days

    policies, chosen, players = _read_players("powergrid report", policies, scenario, given, view, trust_checkpoint)
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
    view: ViewOption = "agents",
    trust_checkpoint: TrustFilesOption = False,
    given: Given,
) -> None:
    """Play a year of SCENARIO, or any span, with several policies: report.html, and tables as Parquet, CSV and SQLite.

    A study that was stopped goes on where it was, in the same folder.
    """
    from powergrid.evaluation.studies.year import find_days, study_year

    policies, chosen, players = _read_players("powergrid study", policies, scenario, given, view, trust_checkpoint)
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
    view: ViewOption = "agents",
    trust_checkpoint: TrustFilesOption = False,
    given: Given,
) -> None:
    """Play policies on days of SCENARIO under stresses, without training: more load, a line out, wrong lines, clouds.

    A matrix of policies and stresses: a page, and tables as CSV and Parquet.
    """
    from powergrid.evaluation.rollout import pick_days
    from powergrid.evaluation.stresses.play import stress_days
    from powergrid.evaluation.stresses.spec import find_stresses
    from powergrid.evaluation.studies.report import AGAINST
    from powergrid.grid.profiles.profiles import split_days

    chosen = find_stresses(stresses or None)
    policies, played, players = _read_players("powergrid stress", policies, scenario, given, view, trust_checkpoint)
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


def _read_players(
    command: str, policies: Sequence[str] | None, scenario: str, given: Given, view: str, trust: bool
) -> tuple[list[str], Any, list[Any]]:
    """Return who plays as named, the scenario that they play, and themselves."""
    from powergrid.scenario import scenario_from_config

    named, env_config = read_played(command, policies, scenario, given)
    chosen = scenario_from_config(env_config)
    return named, chosen, load_policies(named, chosen, view, trust)
