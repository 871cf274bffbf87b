"""The command that reports on policies for who has to sign: a verdict, a page, tables."""

from __future__ import annotations

import shlex
import sys
from dataclasses import replace
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


def report(
    policies: PlayersArgument = None,
    *,
    scenario: PlayedArgument,
    against: Annotated[
        list[str] | None,
        typer.Option("--against", metavar="NAME", help="Compare with this baseline; native, rules and none if unset."),
    ] = None,
    days: Annotated[int, typer.Option(min=1, help="Days to play, spread evenly over the split.")] = 30,
    split: SplitOption = "test",
    replays: Annotated[int, typer.Option(min=0, help="Worst days that are replayed, each a page beside it.")] = 3,
    seed: Annotated[int, typer.Option(min=0, help="Seed of what is random in a day.")] = 0,
    out_dir: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where the files go.")] = Path("report"),
    agents: AgentsOption = None,
    add_der: AddDerOption = None,
    goal: GoalOption = None,
    trust: TrustOption = False,
    overrides: SetOption = None,
    verbose: VerboseOption = False,
) -> None:
    """Report on policies beside the feeder's own controls and engineers' rules: a page, and a CSV of each table."""
    from rich.markup import escape

    from powergrid.evaluation.replay import record_day
    from powergrid.evaluation.replay.page import write_page
    from powergrid.evaluation.rollout import pick_days
    from powergrid.evaluation.studies.report import AGAINST, report_days
    from powergrid.grid.profiles.profiles import split_days
    from powergrid.scenario import scenario_from_config

    log_to_console(verbose)
    given = read_env_config(scenario, overrides, agents, add_der, trust, goal)
    policies, env_config = read_played("powergrid report", policies, scenario, given)
    chosen = scenario_from_config(env_config)
    players = load_policies(policies, chosen)
    profiles = chosen.read_profiles()
    notes = say_seen(policies, players, profiles, pick_days(split_days(profiles, split=split), days).tolist())
    with counting("playing") as advance:
        found = report_days(
            chosen, players, against=against or AGAINST, split=split, days=days, seed=seed, notes=notes,
            command=shlex.join(["powergrid", *sys.argv[1:]]), progress=advance,
        )  # fmt: skip
    links = {date: f"days/{date}.html" for date in found.worst_days(replays)}
    everybody = [*players, *found.against]
    with counting("replaying") as advance:
        for done, (date, page) in enumerate(links.items(), 1):
            write_page(record_day(chosen, everybody, date, seed=seed), out_dir / page)
            advance(done, len(links))
    found = replace(found, links=links)
    for sentences in found.verdicts().values():
        for sentence in sentences:
            out.print(escape(str(sentence)), highlight=False)
    for file in found.write(out_dir)[:1]:
        tell(file)
