"""The command that plays a whole year under several controllers."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from powergrid.cli.evaluation import load_policies
from powergrid.cli.options import (
    AddDerOption,
    AgentsOption,
    GoalOption,
    PlayedArgument,
    SetOption,
    TrustOption,
    VerboseOption,
    counting,
    log_to_console,
    out,
    read_env_config,
    read_played,
    tell,
)
from powergrid.cli.replay import say_seen


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
    workers: Annotated[int | None, typer.Option(min=1, help="Processes that play; one a core if unset.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of what is random in a day.")] = 0,
    out_dir: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where it is kept, and gone on with.")] = Path(
        "study"
    ),
    agents: AgentsOption = None,
    add_der: AddDerOption = None,
    goal: GoalOption = None,
    trust: TrustOption = False,
    overrides: SetOption = None,
    verbose: VerboseOption = False,
) -> None:
    """Play a year of SCENARIO, or any span, with several policies: report.html, and tables as Parquet, CSV and SQLite.

    A study that was stopped goes on where it was, in the same folder.
    """
    from rich.markup import escape

    from powergrid.evaluation.studies.year import find_days, study_year
    from powergrid.scenario import scenario_from_config

    log_to_console(verbose)
    given = read_env_config(scenario, overrides, agents, add_der, trust, goal)
    policies, env_config = read_played("powergrid study", policies, scenario, given)
    chosen = scenario_from_config(env_config)
    players, profiles = load_policies(policies, chosen), chosen.read_profiles()
    notes = say_seen(policies, players, profiles, find_days(profiles, begin, end))
    with counting("days") as advance:
        found = study_year(
            chosen, players, out_dir, begin=begin, end=end, seed=seed, workers=workers or os.cpu_count() or 1,
            notes=notes, command=shlex.join(["powergrid", *sys.argv[1:]]), progress=advance,
        )  # fmt: skip
    for sentences in found.verdicts().values():
        for sentence in sentences:
            out.print(escape(str(sentence)), highlight=False)
    tell(out_dir / "report.html")
