"""Policies and baselines on the same days under every stress, and as they are; what came of it is in ``report``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import Any

from powergrid.envs.core import GridTask
from powergrid.errors import ScenarioError, find_number_problems
from powergrid.evaluation.jobs import run_jobs
from powergrid.evaluation.players import Player, Policy, find_sides
from powergrid.evaluation.players.trained import Sight, add_notes, fit_sights, shown_to
from powergrid.evaluation.replay.recorder import record_days
from powergrid.evaluation.rollout import Progress, read_scenario
from powergrid.evaluation.stresses.readings import LossyPolicy, MissingReadings
from powergrid.evaluation.stresses.report import StressReport
from powergrid.evaluation.stresses.spec import (
    UNDISTURBED,
    WORST,
    Stress,
    find_stresses,
    find_worst_line,
    put_under,
)
from powergrid.evaluation.studies.report import AGAINST, describe_facts
from powergrid.evaluation.studies.summary import Summary
from powergrid.grid.devices.spec import MOST_SEED
from powergrid.grid.profiles.profiles import pick_days
from powergrid.scenario import Scenario

#: What a policy's days under a stress came to, by policy.
Played = dict[str, Summary]


def stress_days(
    env_config: Mapping[str, Any] | Scenario,
    policies: Sequence[str | tuple[str, Policy]],
    stresses: Sequence[str] | Mapping[str, Stress | Mapping[str, Any]] | None = None,
    *,
    against: Sequence[str] = AGAINST,
    split: str = "test",
    days: int = 7,
    seed: int = 0,
    workers: int = 1,
    notes: Mapping[str, str] | None = None,
    command: str = "",
    progress: Progress | None = None,
) -> StressReport:
    """Play the same days with policies and baselines as they are and under each stress; nothing is trained.

    A policy acts as it was trained: it sees the same numbers, scaled as they were, whatever a stress makes of the grid.

    Args:
        env_config: As for ``NetworkedGridEnv``: ``env_name`` or ``scenario``, and any scenario field by its key; or a
            scenario.
        policies: Names of baselines, or a name with an object that has ``act``; whom it is about. With several workers
            one that can be sent to another process.
        stresses: Names of shipped stresses and paths of YAML files, or stresses by name; all shipped if not given.
        against: Names of baselines to compare with, the most important first; those among ``policies`` are left out.
        split: Which days: train, validation, test or all.
        days: How many; they are spread evenly over the split, all of it where it has fewer.
        seed: Seed of whatever is random in a day.
        workers: Processes that play.
        notes: What has to be said of a policy's days, by its name.
        command: The command that made it, for the report to tell.
        progress: Called with the number of days played and to play.

    Raises:
        ScenarioError: the settings, a policy's name, a stress or the split are wrong, or a policy does not fit.
        FeederError: the feeder does not compile or solve.
    """
    scenario, chosen = read_scenario(env_config, split), find_stresses(stresses)
    names, beside, players = find_sides(policies, against)
    problems = find_number_problems(1, days=days, workers=workers) + find_number_problems(0, MOST_SEED, seed=seed)
    if problems:
        raise ScenarioError("stress", problems)
    with closing(GridTask(scenario)) as task:
        usual = Sight.of(task)
        trained = {name: policy for name, policy in players if policy is not None}
        fit_sights({name: own for name, own in trained.items() if not shown_to(own, scenario)}, task)
        picked = pick_days(task.simulation.days, days).tolist()
    n_days, total = len(players) * len(picked), len(players) * len(picked) * (len(chosen) + 1)

    def tell(done: int) -> None:
        if progress is not None:
            progress(done * n_days, total)

    found = {UNDISTURBED: _play(scenario, players, picked, seed, usual, None)}
    tell(1)
    worst = _find_worst(scenario, chosen, found[UNDISTURBED][[*beside, *names][0]])
    jobs = _make_jobs(scenario, chosen, worst, players, (picked, seed, usual))
    for done, (place, played) in enumerate(run_jobs(_play, [*jobs.values()], workers), 2):
        found[[*jobs][place]] = {each: played.get(each, found[UNDISTURBED][each]) for each, _ in players}
        tell(done)
    first, *_, last = [row["date"] for row in (found[UNDISTURBED][names[0]].rows * 2)]
    facts = describe_facts(scenario, seed, command) | {
        "split": split,
        "days": len(picked),
        "first_and_last_day": f"{first} to {last}",
        **({"line_out": worst} if worst else {}),
    }
    told = add_notes(notes or {}, policies, scenario)
    ordered = {name: found[name] for name in (UNDISTURBED, *chosen)}
    return StressReport(scenario, names, beside, chosen, ordered, facts, told)


def _find_worst(scenario: Scenario, stresses: Mapping[str, Stress], base: Summary) -> str | None:
    if not any(WORST in (each.outage or ()) for each in stresses.values()):
        return None
    branches = base.branches()
    return find_worst_line(scenario, dict(zip(branches["branch"], branches["loading_max_pu"], strict=True)))


def _make_jobs(
    scenario: Scenario, stresses: Mapping[str, Stress], worst: str | None, players: Sequence[Player],
    days: tuple[Sequence[int], int, Sight],
) -> dict[str, tuple[Any, ...]]:  # fmt: skip
    """Return what is to be played under each stress, all of them checked before any is."""
    jobs, problems = dict[str, tuple[Any, ...]](), list[str]()
    for name, stress in stresses.items():
        try:
            own = put_under(scenario, stress, worst)
            if own is not scenario:
                own.simulate().close()
        except ScenarioError as error:
            problems += [f"{name}: {problem}" for problem in error.problems]
            continue
        # what acts on the grid itself plays the same days again where nothing of the grid differs
        seated = [player for player in players if own is not scenario or player[1] is not None]
        jobs[name] = (own, seated, *days, stress.missing)
    if problems:
        raise ScenarioError("stresses", problems)
    return jobs


def _play(
    scenario: Scenario, players: Sequence[Player], days: Sequence[int], seed: int, usual: Sight,
    missing: MissingReadings | None,
) -> Played:  # fmt: skip
    """Play days of a scenario, with readings missing where asked for."""
    seated: list[Player] = [
        (name, policy if policy is None or missing is None else LossyPolicy(policy, missing, seed))
        for name, policy in players
    ]
    found = {name: Summary() for name, _ in players}
    for recording in record_days(scenario, seated, days, seed=seed, usual=usual):
        found[recording.policy].add(recording)
    return found
