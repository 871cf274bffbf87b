"""The commands that keep days to learn from: record and demonstrate."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from powergrid.cli.evaluation import load_policies
from powergrid.cli.options import (
    DaySeedOption,
    DaysOption,
    Given,
    GivenWithPolicies,
    ScenarioArgument,
    SplitOption,
    counting,
    tell,
    with_options,
)


@with_options(without=["view"])
def record(
    scenario: ScenarioArgument,
    folder: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="Minari's folder of data sets: MINARI_DATASETS_PATH.")
    ],
    policy: Annotated[str, typer.Option(metavar="NAME|RUN", help="A baseline's name, or a run folder.")] = "rule_based",
    view: Annotated[str, typer.Option(help="central: one controller of all; agents: a Dict of each.")] = "central",
    actions: Annotated[str, typer.Option(help="Form of the central action space: auto, box or mixed.")] = "auto",
    days: DaysOption = 30,
    split: SplitOption = "train",
    seed: DaySeedOption = 0,
    *,
    given: GivenWithPolicies,
) -> None:
    """Play days of SCENARIO and keep them as a Minari data set with a card, for learning offline; needs Minari."""
    from powergrid.evaluation import datasets
    from powergrid.scenario import scenario_from_config

    env_config = given.env_config(scenario)
    [player] = load_policies([policy], scenario_from_config(env_config), trust=given.trust_checkpoint)
    with counting("days") as progress:
        keep: Any = datasets.record_dataset  # which says what is wrong with a view or a form
        place: Path = keep(
            env_config, folder, player, view=view, actions=actions, split=split, days=days, seed=seed,
            progress=progress,
        )  # fmt: skip
    identity = place.relative_to(place.parents[2]).as_posix()
    tell(place / "README.md")
    tell(f"Load it with MINARI_DATASETS_PATH={shlex.quote(str(folder))} and minari.load_dataset({identity!r})")


@with_options()
def demonstrate(
    scenario: ScenarioArgument,
    folder: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where the days are kept; goes on there.")],
    policy: Annotated[str, typer.Option(metavar="NAME", help="The baseline that plays.")] = "optimum",
    days: DaysOption = 60,
    split: SplitOption = "train",
    seed: DaySeedOption = 0,
    workers: Annotated[int, typer.Option(min=1, help="Processes that play.")] = 1,
    *,
    given: Given,
) -> None:
    """Let a baseline play days of SCENARIO and keep them, for `train --setting demonstrations=DIR` to imitate."""
    from powergrid.evaluation.demonstrations import record_demonstrations

    with counting("days") as progress:
        place = record_demonstrations(
            given.env_config(scenario), folder, policy=policy, days=days, split=split, seed=seed, workers=workers,
            progress=progress,
        )  # fmt: skip
    tell(f"Imitate them with: powergrid train {shlex.quote(scenario)} --setting demonstrations={place}")
