"""The command that tells what was to be had of a day, and where a policy loses it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from powergrid.cli.evaluation import load_policies
from powergrid.cli.options import (
    DateOption,
    DayOption,
    DaySeedOption,
    GivenWithPolicies,
    ScenarioArgument,
    SplitOption,
    TablesOption,
    counting,
    out,
    tell,
    with_options,
)
from powergrid.errors import ScenarioError

#: Who is explained where nobody is named.
_EXPLAINED = "rule_based"


@with_options(without=["view"])
def optimum(
    scenario: ScenarioArgument,
    policy: Annotated[
        list[str] | None,
        typer.Option("--policy", metavar="NAME|RUN", help="Play this beside it: a baseline or a run; repeatable."),
    ] = None,
    days: Annotated[int | None, typer.Option(min=1, help="Days, spread evenly over the split; 1 if unset.")] = None,
    date: DateOption = None,
    day: DayOption = None,
    split: SplitOption = "test",
    explain: Annotated[
        bool, typer.Option("--explain", help="Tell where the policy loses: by term, hour and device.")
    ] = False,
    draw: Annotated[
        Path | None,
        typer.Option("--draw", metavar="FILE", help="Draw the first day, policies beside it: .png or .svg."),
    ] = None,
    seed: DaySeedOption = 0,
    out_dir: TablesOption = None,
    *,
    given: GivenWithPolicies,
) -> None:
    """Find the best that could have been done on days of SCENARIO, all known beforehand, and what policies lose."""
    from powergrid.evaluation.drawing import check_suffix, save
    from powergrid.evaluation.optimum.explain import explain as find_gap
    from powergrid.evaluation.optimum.picture import draw_day
    from powergrid.evaluation.optimum.report import find_optima
    from powergrid.evaluation.replay import pick_day
    from powergrid.scenario import scenario_from_config

    if draw is not None:
        check_suffix(draw)
    if sum(each is not None for each in (days, date, day)) > 1:
        raise ScenarioError("powergrid optimum", ["say which days once: one of --days, --date and --day"])
    chosen = scenario_from_config(given.env_config(scenario))
    named = policy or ([_EXPLAINED] if explain or draw else [])
    players = load_policies(named, chosen, trust=given.trust_checkpoint)
    which = day if date is None else pick_day(chosen.read_profiles(), date)
    with counting("playing") as advance:
        report = find_optima(
            chosen, players, split=split if which is None else "all", days=[which] if which is not None else days or 1,
            seed=seed, progress=advance,
        )  # fmt: skip
    out.print(report.table())
    out.print(report.evaluation.optimum_table())
    written = [] if out_dir is None else report.write(out_dir)
    if explain or draw is not None:
        for place, player in enumerate(players):
            with counting("explaining") as advance:
                gap, first = find_gap(chosen, player, list(report.optima), seed=seed, progress=advance)
            if explain:
                for table in gap.tables():
                    out.print(table)
                written += [] if out_dir is None else gap.write(out_dir)
            if draw is not None and not place:
                limits = chosen.voltage.v_min_pu, chosen.voltage.v_max_pu
                written.append(save(draw_day(first, limits, f"{chosen.name}, {first[0].date}"), draw))
    for file in written:
        tell(file)
