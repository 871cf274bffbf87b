"""The command that plays policies under stress."""

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
    PlayersArgument,
    SetOption,
    SplitOption,
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


def stress(
    policies: PlayersArgument = None,
    *,
    scenario: PlayedArgument,
    stresses: Annotated[
        list[str] | None,
        typer.Option("--stress", metavar="NAME|FILE", help="This one, or those of a YAML file; repeatable; all."),
    ] = None,
    against: Annotated[
        list[str] | None,
        typer.Option("--against", metavar="NAME", help="Compare with this baseline; native, rules and none if unset."),
    ] = None,
    days: Annotated[int, typer.Option(min=1, help="Days to play, spread evenly over the split.")] = 7,
    split: SplitOption = "test",
    workers: Annotated[int | None, typer.Option(min=1, help="Processes that play; one a core if unset.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of what is random in a day.")] = 0,
    out_dir: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where the files go.")] = Path("stress"),
    agents: AgentsOption = None,
    add_der: AddDerOption = None,
    goal: GoalOption = None,
    trust: TrustOption = False,
    overrides: SetOption = None,
    verbose: VerboseOption = False,
) -> None:
    """Play policies on days of SCENARIO under stresses, without training: more load, a line out, wrong lines, clouds.

    A matrix of policies and stresses: a page, and tables as CSV and Parquet.
    """
    from rich.markup import escape

    from powergrid.evaluation.rollout import pick_days
    from powergrid.evaluation.stresses.play import stress_days
    from powergrid.evaluation.stresses.spec import find_stresses
    from powergrid.evaluation.studies.report import AGAINST
    from powergrid.grid.profiles.profiles import split_days
    from powergrid.scenario import scenario_from_config

    log_to_console(verbose)
    chosen = find_stresses(stresses or None)
    given = read_env_config(scenario, overrides, agents, add_der, trust, goal)
    policies, env_config = read_played("powergrid stress", policies, scenario, given)
    played = scenario_from_config(env_config)
    players, profiles = load_policies(policies, played), played.read_profiles()
    notes = say_seen(policies, players, profiles, pick_days(split_days(profiles, split=split), days).tolist())
    with counting("playing") as advance:
        found = stress_days(
            played, players, chosen, against=against or AGAINST, split=split, days=days, seed=seed,
            workers=workers or os.cpu_count() or 1, notes=notes, command=shlex.join(["powergrid", *sys.argv[1:]]),
            progress=advance,
        )  # fmt: skip
    out.print(found.table())
    for sentences in found.verdicts().values():
        for sentence in sentences:
            out.print(escape(str(sentence)), highlight=False)
    for file in found.write(out_dir)[:1]:
        tell(file)
