"""A year, or any span, under several controllers: played month by month in worker processes, kept, and gone on with."""

from __future__ import annotations

import copy
import datetime
import hashlib
import json
import pickle
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from pydantic import BaseModel

from powergrid.errors import ScenarioError, find_number_problems
from powergrid.evaluation.jobs import run_jobs
from powergrid.evaluation.players import Player, Policy, find_players, seat_players
from powergrid.evaluation.players.trained import add_notes
from powergrid.evaluation.replay.recorder import Recorder
from powergrid.evaluation.rollout import Progress, play_steps, read_scenario, start_days
from powergrid.evaluation.studies.report import PlannerReport, describe_facts
from powergrid.evaluation.studies.summary import Summary
from powergrid.files import make_folder, read_json, replacing, sole_use, write_whole
from powergrid.grid.devices.spec import MOST_SEED
from powergrid.grid.profiles.profiles import Profiles, split_days
from powergrid.scenario import Scenario, load_scenario

if TYPE_CHECKING:
    import pandas as pd

#: What a study is, beside the parts that it has come to.
MANIFEST = "study.json"
_PARTS = "parts"


class Part(NamedTuple):
    """Days in a row that one policy plays without a reset: what batteries hold and where taps stand goes on.

    Attributes:
        player: Who plays.
        month: The month that the days are of, as ``2018-01``; a second part of it ends in a letter.
        first: The first day, from that of the profiles.
        n_days: How many.
    """

    player: str
    month: str
    first: int
    n_days: int

    @property
    def file(self) -> str:
        """Name of the file that keeps what it came to; another span of the same month is another part."""
        return f"{self.player.strip('/').replace('/', '_')}_{self.month}_{self.first}-{self.n_days}.npz"


def study_year(
    env_config: Mapping[str, Any] | Scenario,
    policies: Sequence[str | tuple[str, Policy]],
    folder: str | Path,
    *,
    begin: str | datetime.date | None = None,
    end: str | datetime.date | None = None,
    seed: int = 0,
    workers: int = 1,
    notes: Mapping[str, str] | None = None,
    command: str = "",
    progress: Progress | None = None,
) -> PlannerReport:
    """Play every day of a span with several policies, and report on the first beside the others.

    Each month is played without a reset: what batteries hold, where taps stand and which cars are there goes on from
    day to day. Months that are in the folder already are not played again.

    Args:
        env_config: As for ``NetworkedGridEnv``: ``env_name`` or ``scenario``, and any scenario field by its key; or a
            scenario.
        policies: Names of baselines, or a name with an object that has ``act``; with several workers one that can be
            sent to another process.
        folder: Where parts and tables go; it is made.
        begin, end: First and last date, of whichever split; those of the profiles if not given.
        seed: Seed of whatever is random in a day.
        workers: Processes that play.
        notes: What has to be said of a policy's days, by its name.
        command: The command that made it, for the report to tell.
        progress: Called with the number of days played and to play.

    Raises:
        ScenarioError: the settings, a policy's name or the span are wrong, or the folder holds another study.
        FeederError: the feeder does not compile or solve.
        PowerGridError: another process is at work in the folder, or it cannot be written.
    """
    scenario, players = read_scenario(env_config, "all"), find_players(policies)
    problems = find_number_problems(0, MOST_SEED, seed=seed) + find_number_problems(1, workers=workers)
    if 24 * 60 % scenario.step_minutes:
        problems.append(f"step_minutes {scenario.step_minutes} do not make up a day")
    if problems:
        raise ScenarioError("study", problems)
    profiles = scenario.read_profiles()
    days = find_days(profiles, begin, end)
    parts = [part for name, _ in players for part in _divide(name, days, profiles)]
    facts = describe_facts(scenario, seed, command) | {
        "split": "all",
        "days": len(days),
        "first_and_last_day": f"{_date(profiles, days[0])} to {_date(profiles, days[-1])}",
    }
    folder = Path(folder)
    make_folder(folder / _PARTS)
    with sole_use(folder):
        claim(folder / MANIFEST, facts, {name: digest_of(policy) for name, policy in players})
        left = [part for part in parts if not (folder / _PARTS / part.file).is_file()]
        done = sum(part.n_days for part in parts) - sum(part.n_days for part in left)
        for part in _play_parts(scenario, dict(players), left, folder / _PARTS, seed, workers):
            done += part.n_days
            if progress is not None:
                progress(done, sum(part.n_days for part in parts))
        told = add_notes(notes or {}, policies, scenario)
        return _conclude(scenario, [name for name, _ in players], parts, folder, facts, told)


def _conclude(
    scenario: Scenario, names: Sequence[str], parts: Sequence[Part], folder: Path, facts: dict[str, Any],
    notes: Mapping[str, str],
) -> PlannerReport:  # fmt: skip
    """Put together what parts came to, write it and return it."""
    summaries = {name: Summary() for name in names}
    for part in parts:
        summaries[part.player].merge(Summary.load(folder / _PARTS / part.file))
    facts["nodes_counted"] = int(summaries[names[0]].counted.sum())
    report = PlannerReport(scenario, (names[0],), tuple(names[1:]), summaries, facts, notes)
    report.write(folder)
    write_databases(report.tables(), folder / "study.sqlite")
    return report


def find_days(profiles: Profiles, begin: Any, end: Any) -> list[int]:
    """Return the days of a span, those left out of the profiles left out.

    Raises:
        ScenarioError: a date is none, or the span has no day.
    """
    first, last = profiles.start.astype("datetime64[D]"), profiles.start.astype("datetime64[D]") + profiles.n_days - 1
    ends, problems = [first, last], []
    for i, (key, given) in enumerate((("from", begin), ("to", end))):
        if given is None:
            continue
        try:
            ends[i] = np.datetime64(datetime.date.fromisoformat(str(given)), "D")
        except ValueError:
            problems.append(f"{key} {str(given)!r} is no date; write it as {first}")
            continue
        if not first <= ends[i] <= last:
            problems.append(f"{key} {ends[i]} is not in the profiles {profiles.name!r}; they have {first} to {last}")
    if not problems and ends[1] < ends[0]:
        problems.append(f"from {ends[0]} is after to {ends[1]}")
    if problems:
        raise ScenarioError("study", problems)
    low, high = ((each - first).astype(int) for each in ends)
    days = [int(day) for day in split_days(profiles, split="all") if low <= day <= high]
    if not days:
        raise ScenarioError("study", [f"no day from {ends[0]} to {ends[1]} is in the profiles"])
    return days


def _date(profiles: Profiles, day: int) -> str:
    return str(profiles.start.astype("datetime64[D]") + day)


def _divide(player: str, days: Sequence[int], profiles: Profiles) -> Iterator[Part]:
    """Yield a player's parts: a month each, or less where a day is left out."""
    first, count, part = days[0], 0, 0
    for day, after in zip(days, [*days[1:], None], strict=True):
        count += 1
        month = _date(profiles, first)[:7]
        if after is None or after != day + 1 or _date(profiles, after)[:7] != month:
            yield Part(player, month + ("" if part == 0 else f"-{part}"), first, count)
            same = after is not None and _date(profiles, after)[:7] == month
            first, count, part = after or 0, 0, part + 1 if same else 0


def play_part(scenario: Scenario, player: Player, part: Part, seed: int) -> Summary:
    """Play a part and return what its days came to."""
    steps_per_day = 24 * 60 // scenario.step_minutes
    # A step that does not converge is told, and the month goes on from the last sound state.
    keys = {"split": "all", "episode_length": part.n_days * steps_per_day, "divergence": {"policy": "hold"}}
    summary = Summary()
    for name, task, seated in seat_players(load_scenario(scenario, keys), [player], 1, seed):
        start_days(task, seated, [part.first], seed)
        steps = play_steps(task, seated, 1)
        for _ in range(part.n_days):
            recorder = Recorder(task, steps_per_day)
            for action, _ in islice(steps, steps_per_day):
                recorder.add(action)
            summary.add(recorder.finish(name, "baseline" if player[1] is None else "policy", ()))
    return summary


def _keep_part(scenario: Scenario, player: Player, part: Part, folder: Path, seed: int) -> None:
    play_part(scenario, player, part, seed).save(folder / part.file)


def _play_parts(
    scenario: Scenario,
    players: Mapping[str, Policy | None],
    parts: Sequence[Part],
    folder: Path,
    seed: int,
    workers: int,
) -> Iterator[Part]:
    """Play parts, here or in processes of their own, and yield each when it is kept."""
    jobs = [(scenario, (part.player, players[part.player]), part, folder, seed) for part in parts]
    for place, _ in run_jobs(_keep_part, jobs, workers):
        yield parts[place]


def digest_of(policy: Policy | None) -> str:
    """Return what tells a policy from another of the same name."""
    if policy is None:
        return "baseline"
    own = copy.copy(policy)
    if hasattr(own, "trained_scenario"):  # a run that was moved is the same run
        own.trained_scenario = None
    return hashlib.sha256(pickle.dumps(own)).hexdigest()


#: What makes a study of the same folder another one.
_SAME = ("scenario_digest", "feeder_digest", "profiles_digest", "seed")


def claim(file: Path, facts: Mapping[str, Any], policies: Mapping[str, str], same: Sequence[str] = _SAME) -> None:
    """Note what a study is, or see that the one in the folder is the same; policies may come to it.

    Args:
        file: Where it is noted.
        facts: What it is.
        policies: Digest of each policy by its name.
        same: Which of the facts have to be as they were.

    Raises:
        ScenarioError: the folder holds another study.
        PowerGridError: what it holds cannot be read.
    """
    kept = _Manifest(facts={}, policies={})
    if file.is_file():
        kept = read_json(file, _Manifest)
        changed = [key.removesuffix("_digest").replace("_", " ") for key in same if kept.facts.get(key) != facts[key]]
        changed += [name for name, digest in policies.items() if kept.policies.get(name, digest) != digest]
        if changed:
            remedy = "choose another folder, or delete this one"
            raise ScenarioError(str(file.parent), [f"holds a study of another {' and '.join(changed)}; {remedy}"])
    told = {"facts": dict(facts), "policies": dict(kept.policies) | dict(policies)}
    write_whole(file, json.dumps(told, indent=1) + "\n")


class _Manifest(BaseModel):
    facts: dict[str, Any]
    policies: dict[str, str]


def write_databases(tables: Mapping[str, pd.DataFrame], file: Path) -> None:
    """Write tables as Parquet files beside an SQLite file that has all of them, each whole or not at all."""
    for name, table in tables.items():
        with replacing(file.parent / f"{name}.parquet") as place:
            table.to_parquet(place, index=False)
    with replacing(file) as place, closing(sqlite3.connect(place)) as database:
        for name, table in tables.items():
            table.to_sql(name, database, index=False)
