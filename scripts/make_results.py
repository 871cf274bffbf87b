"""Measure what stands in docs/results.md, write its tables and pictures from the measurements, and check its claims.

``measure`` plays baselines, the optimum and runs on days of the test split and keeps what each day came to in
docs/results/NAME.csv and .json. ``write`` makes what docs/results.md has between ``<!-- NAME: PART -->`` and
``<!-- end -->`` of these files, and the pictures; a test holds the page to them. ``check`` plays again what NAME has,
and says which of its claims do not hold.

Usage::

    python scripts/make_results.py measure ieee13_mg --runs runs/ieee13_mg-*
    python scripts/make_results.py measure ieee13_mg --add --runs runs/ieee13_mg-*
    python scripts/make_results.py measure ieee13_mg --add --policies greedy mpc
    python scripts/make_results.py measure ieee13_mg --as ieee13_mg_ablations --runs runs/ablation-* --ablations
    python scripts/make_results.py day ieee13_mg [--date 2018-01-20] [--runs runs/ieee13_mg-0]
    python scripts/make_results.py write
    python scripts/make_results.py check ieee13_mg [--runs runs/ieee13_mg-*] [--days 3]

Tables have a row for each training, whatever its number of seeds; of what there is one seed it says so. The script
trains nothing: runs are those of ``powergrid train``.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from powergrid.errors import PowerGridError
from powergrid.evaluation import BASELINES, EvaluationReport, baseline_names, evaluate
from powergrid.evaluation.drawing import draw_improvements, draw_profiles, save
from powergrid.evaluation.optimum.explain import play_day
from powergrid.evaluation.optimum.picture import draw_day
from powergrid.evaluation.report import as_markdown
from powergrid.evaluation.statistics import Estimate, Interval
from powergrid.files import make_folder, write_whole
from powergrid.grid.profiles.profiles import pick_days
from powergrid.rules import PLAYED
from powergrid.scenario import load_scenario
from powergrid.scenario.demonstrations import read_demonstrations

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGE, KEPT, IMAGES = DOCS / "results.md", DOCS / "results", DOCS / "images"
#: Columns of an evaluation that the page needs, and with which its claims are checked.
COLUMNS = (
    "policy", "day", "date", "hours", "finished", "reward", "cost_usd", "violation_node_hours", "violation_max_pu",
    "losses_kwh", "v_min_pu", "v_max_pu", "loading_max_pu", "overload_branch_hours", "import_peak_kw", "operations",
    "storage_cycles",
)  # fmt: skip
#: By how much a played day may differ from the kept one, and a policy's be above the optimum's [reward].
SAME, ABOVE = 1e-6, 1e-3
BLOCK = re.compile(r"<!-- (?P<name>[\w.-]+): (?P<part>\w+) -->\n.*?<!-- end -->", re.DOTALL)


class Measured(NamedTuple):
    """What is kept of a measurement.

    Attributes:
        name: Name of its files.
        report: Who played, what each day came to.
        facts: The command, and how each training was done, by its name.
    """

    name: str
    report: EvaluationReport
    facts: Mapping[str, Any]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, write or check."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_subparsers(dest="what", required=True)
    measuring = what.add_parser("measure", help="play and keep")
    measuring.add_argument("scenario")
    measuring.add_argument("--as", dest="name", help="name of the files; the scenario's if unset")
    measuring.add_argument("--runs", nargs="*", default=[], help="run folders")
    measuring.add_argument("--policies", nargs="*", metavar="BASELINE", help="who is played; the quick ones if unset")
    measuring.add_argument("--days", type=int, default=30)
    measuring.add_argument("--without", nargs="*", default=[], metavar="BASELINE", help="who is not played")
    measuring.add_argument("--add", action="store_true", help="play --policies and --runs alone, on the days kept")
    measuring.add_argument("--ablations", action="store_true", help="beside runs only the ends of the scale are played")
    drawing = what.add_parser("day", help="draw one of its days, the best baseline and runs beside the optimum")
    drawing.add_argument("name")
    drawing.add_argument("--date", help="its date; where the best baseline loses most if unset")
    drawing.add_argument("--runs", nargs="*", default=[], help="run folders")
    what.add_parser("write", help="write the page and its pictures")
    checking = what.add_parser("check", help="play again and check the claims")
    checking.add_argument("name")
    checking.add_argument("--runs", nargs="*", default=[], help="run folders, else baselines alone")
    checking.add_argument("--days", type=int, help="as many of its days, all if unset")
    asked = parser.parse_args(arguments)
    if asked.what == "measure":
        if asked.ablations:
            asked.without += [name for name in baseline_names() if name not in ("no_control", "rule_based")]
        name = asked.name or asked.scenario
        if asked.add:
            add(name, asked.runs, asked.policies or ())
        else:
            measure(asked.scenario, name, asked.runs, asked.days, asked.without, asked.policies)
    elif asked.what == "day":
        draw_one_day(read(asked.name), asked.date, asked.runs)
    elif asked.what == "write":
        write_whole(PAGE, render(PAGE.read_text(encoding="utf-8"), draw=True))
    else:
        problems = [*check_kept(read(asked.name)), *check_played(read(asked.name), asked.runs, asked.days)]
        print("\n".join(problems) or f"{asked.name}: every claim holds")
        sys.exit(bool(problems))


# -- measure


def measure(
    scenario: str, name: str, runs: Sequence[str], days: int, without: Sequence[str] = (),
    policies: Sequence[str] | None = None,
) -> Measured:  # fmt: skip
    """Play baselines, the optimum and runs on the same test days, and keep what came of it."""
    named = (*baseline_names(), "optimum") if policies is None else policies
    everybody = [each for each in dict.fromkeys(named) if each not in without]
    report = evaluate({"env_name": scenario}, [*everybody, *_load(runs)], days=days, progress=_tell)
    trained = {group: describe_training(members, runs) for group, members in report.groups.items()}
    day = {"day": read(name).facts["day"]} if (KEPT / f"{name}.json").is_file() and "day" in read(name).facts else {}
    keep(Measured(name, report, {"command": _command(), "trained": trained, **day}))
    return read(name)


def _command() -> str:
    return shlex.join(["python", "scripts/make_results.py", *sys.argv[1:]])


def add(name: str, runs: Sequence[str], policies: Sequence[str] = ()) -> Measured:
    """Play baselines and runs on the days that are kept, and keep what came of it in place of their older days.

    Raises:
        PowerGridError: Nothing of that name was measured, nobody plays, or the scenario is another one by now.
    """
    _, there, facts = read(name)
    told, everybody = there.provenance, [*policies, *_load(runs)]
    if not everybody:
        raise PowerGridError(f"{name}: who is to be added? give --policies greedy, or --runs runs/{name}-*")
    report = evaluate({"env_name": told["scenario"]}, everybody, split=told["split"], days=told["days"], progress=_tell)
    for digest in ("scenario_digest", "profiles_digest"):
        if report.provenance[digest] != told[digest]:
            raise PowerGridError(
                f"{name}: {digest} was {told[digest]}, now {report.provenance[digest]}: measure it anew"
            )
    frame = pd.concat([there.frame[~there.frame["policy"].isin(report.kinds)], report.frame], ignore_index=True)
    groups = {row: own for row, own in there.groups.items() if not set(own) & set(report.kinds)} | dict(report.groups)
    more = {key: {**told.get(key, {}), **report.provenance.get(key, {})} for key in ("seeds", "differs_from_training")}
    provenance = {**told, **{key: both for key, both in more.items() if both}}
    kinds = {**there.kinds, **report.kinds}
    kinds = {each: kinds[each] for each in (*(known for known in BASELINES if known in kinds), *kinds)}
    merged = EvaluationReport(frame, kinds, provenance, groups)
    trained = {row: own for row, own in facts["trained"].items() if row in groups}
    trained |= {row: describe_training(members, runs) for row, members in report.groups.items()}
    command = _command()
    commands = "\n".join([*(own for own in facts["command"].split("\n") if own != command), command])
    keep(Measured(name, merged, {**facts, "command": commands, "trained": trained}))
    return read(name)


def _load(runs: Sequence[str]) -> list[Any]:
    if not runs:
        return []
    from powergrid.training import load_policy  # only now: baselines alone need no torch

    return [(Path(run).name, load_policy(run)) for run in runs]


def _tell(done: int, total: int) -> None:
    print(f"\r{done} of {total} days", end="" if done < total else "\n", file=sys.stderr, flush=True)


def describe_training(members: Sequence[str], runs: Sequence[str]) -> dict[str, Any]:
    """Return how the runs of a group were trained: steps, what differs from the defaults, and from the scenario."""
    from powergrid.training.runs.records import find_changed_settings, name_of_training, read_manifest

    folders = [Path(run) for run in runs if Path(run).name in members]
    manifest = read_manifest(folders[0])
    curves = [pd.read_csv(folder / "progress.csv") for folder in folders]
    changed = find_changed_settings(manifest)
    shown = changed.get("demonstrations", "rule_based")
    if shown not in PLAYED:
        found = read_demonstrations(shown)  # a folder's path says nothing elsewhere
        changed["demonstrations"] = f"{len(found.days)} days of {found.kept.policy}"
    return {
        "how": name_of_training(manifest),
        "scenario_digest": manifest["digests"].get("scenario"),
        "keys": {key: value for key, value in manifest["env_config"].items() if key != "env_name"},
        "changed": changed,
        "env_steps": int(np.median([curve["env_steps"].iloc[-1] for curve in curves])),
    }


def keep(measured: Measured) -> None:
    """Write the files of a measurement, each whole."""
    name, report, facts = measured
    frame = report.frame
    columns = [*(c for c in COLUMNS if c in frame), *(c for c in frame if str(c).startswith("reward:"))]
    make_folder(KEPT)
    table = frame[columns].to_csv(index=False, lineterminator="\n", float_format="%.9g")
    kept = {**facts, "kinds": dict(report.kinds), "groups": dict(report.groups), "provenance": dict(report.provenance)}
    write_whole(KEPT / f"{name}.csv", table)
    write_whole(KEPT / f"{name}.json", json.dumps(kept, indent=1) + "\n")


def read(name: str) -> Measured:
    """Read what :func:`keep` wrote.

    Raises:
        PowerGridError: nothing of that name was measured.
    """
    if not (KEPT / f"{name}.json").is_file():
        raise PowerGridError(f"{KEPT / name}.json is not there: python scripts/make_results.py measure {name}")
    kept = json.loads((KEPT / f"{name}.json").read_text(encoding="utf-8"))
    frame = pd.read_csv(KEPT / f"{name}.csv")
    report = EvaluationReport(frame, kept.pop("kinds"), kept.pop("provenance"), kept.pop("groups"))
    return Measured(name, report, kept)


# -- write


def render(page: str, *, draw: bool = False) -> str:
    """Return the page with every marked part made anew of what is kept, and draw its pictures if wanted."""

    def fill(found: re.Match[str]) -> str:
        measured = read(found["name"])
        if found["part"] == "pictures" and draw:
            draw_pictures(measured)
        return f"<!-- {found['name']}: {found['part']} -->\n{PARTS[found['part']](measured)}<!-- end -->"

    return BLOCK.sub(fill, page)


def write_scores(measured: Measured) -> str:
    """Return the command, what follows from the numbers in a sentence each, and the table of scores."""
    _, report, facts = measured
    told, best = report.provenance, report.best_baseline
    version, digest = told.get("scenario_version", told["scenario"]), told["scenario_digest"][:12]
    days = f"{len(told['days'])} days of the {told['split']} split of `{version}` (digest `{digest}`)"
    lines = ["<!-- not run: minutes of play -->", "```bash", facts["command"], "```", ""]
    lines += [f"{days}, PowerGrid {told['versions']['powergrid']}. {' '.join(say_findings(report))}", ""]
    heads = ["policy", *(["score", "middle half", "regret, USD/day"] if report.optimum else []), "reward"]
    heads += [f"over {best}", f"beats {best}, % of days"] if best else []
    rows = []
    for row in report.names:
        # without the optimum there are no such scores: what the best baseline is 1 of is another scale
        scores = (report.score_statistics(row) or {}) if report.optimum else {}
        cells = [_name(report, row)]
        if report.optimum:
            mean = f"{scores['mean'].value:.3f}" if scores else ""
            cells += [mean, _brackets(scores.get("iqm")), _whole(report.regret_usd(row))]
        cells.append(_two(report.reward(row)))
        if best:
            ours = (_two(report.difference(row, best), "+"), _percent(report.improvement(row, best)))
            cells += ("", "") if row == best else ours
        rows.append(cells)
    return "\n".join([*lines, as_markdown(heads, rows, n_texts=1)]) + say_trainings(facts)


def say_findings(report: EvaluationReport) -> Iterator[str]:
    """Yield what the numbers say of each training and of the best baseline; nothing that intervals do not tell."""
    best, trained = report.best_baseline, [name for name in report.names if report.seeds_of(name)]
    if best:
        score = f", score {report.score(best):.2f}" if report.optimum else ""
        yield f"The best baseline is `{best}`{score}."
    if not report.optimum:
        yield "The optimum of these days has not been found yet, so there is neither a score nor a regret."
    for name in trained if best else ():
        gain = report.difference(name, str(best))
        low, high = gain.mean - gain.half, gain.mean + gain.half
        said = "above" if low > 0.0 else "below" if high < 0.0 else "not told apart from"
        score = f"score {report.score(name):.2f}, " if report.optimum else ""
        yield f"{_name(report, name)}: {score}{said} `{best}` ({low:+.2f} to {high:+.2f})."
    if not trained:
        yield "No training has been measured on it yet."


def say_trainings(facts: Mapping[str, Any]) -> str:
    """Return how each training was done."""
    lines = []
    for name, own in facts["trained"].items():
        changed = _say_changed(own) or "default settings"
        lines.append(f"- `{name}`: {own['how']}, {own['env_steps']:,} environment steps, {changed}\n")
    return "".join(["\n", *lines]) if lines else ""


def _say_changed(own: Mapping[str, Any]) -> str:
    told = own["changed"] | {key: value for key, value in own.get("keys", {}).items() if key not in own["changed"]}
    return ", ".join(f"`{key}={value}`" for key, value in told.items())


def write_grid(measured: Measured) -> str:
    """Return the table of money and grid: means of a day, and the worst of all days."""
    report = measured.report
    heads = [
        "policy", "cost, USD/day", "losses, kWh/day", "outside the band, node-h/day", "lowest, pu", "highest, pu",
        "highest loading, %", "overload, branch-h/day", "moves a day",
    ]  # fmt: skip
    rows = []
    for name in report.names:
        own = report.frame[report.frame["policy"].isin(report.groups.get(name, (name,)))]
        day = 24.0 / own["hours"]
        rows.append((
            _name(report, name), f"{(own['cost_usd'] * day).mean():.0f}", f"{(own['losses_kwh'] * day).mean():.0f}",
            f"{(own['violation_node_hours'] * day).mean():.1f}", f"{own['v_min_pu'].min():.3f}",
            f"{own['v_max_pu'].max():.3f}", f"{100.0 * own['loading_max_pu'].max():.0f}",
            f"{(own['overload_branch_hours'] * day).mean():.1f}", f"{(own['operations'] * day).mean():.1f}",
        ))  # fmt: skip
    return as_markdown(heads, rows, n_texts=1)


def write_pictures(measured: Measured) -> str:
    """Return the links to the pictures."""
    name, best = measured.name, measured.report.best_baseline
    return (
        f"![Performance profiles on {name}: part of seeds and days above each score](images/{name}_profiles.png)\n\n"
        f"![Probability of a better day than {best} on {name}](images/{name}_improvement.png)\n"
    )


def draw_pictures(measured: Measured) -> None:
    """Draw performance profiles, and the probability of a better day than the best baseline's."""
    name, report = measured.name, measured.report
    save(draw_profiles(report.profiles(), *report.scale), IMAGES / f"{name}_profiles.png", dpi=110)
    best = str(report.best_baseline)
    better = {row: report.improvement(row, best) for row in report.names if row != best}
    save(draw_improvements(better, best), IMAGES / f"{name}_improvement.png", dpi=110)


def draw_one_day(measured: Measured, date: str | None, runs: Sequence[str]) -> None:
    """Draw a day that was measured as the best baseline, runs and the optimum play it, and keep what it came to.

    Raises:
        PowerGridError: the date is not among the days that were measured.
    """
    name, report, facts = measured
    best, told = str(report.best_baseline), report.provenance
    rewards = report.frame.pivot(index=["date", "day"], columns="policy", values="reward")
    chosen = date or str(rewards.index[int((rewards["optimum"] - rewards[best]).to_numpy().argmax())][0])
    if chosen not in rewards.index.get_level_values("date"):
        dates = ", ".join(rewards.index.get_level_values("date"))
        raise PowerGridError(f"{KEPT / name}.csv: {chosen} was not measured; its days are {dates}")
    day = int(rewards.loc[chosen].index[0])
    scenario = load_scenario(told["scenario"], {"split": told["split"]})
    played = list(play_day(scenario, [(best, None), *_load(runs), ("optimum", None)], day, told["seed"]))
    figure = draw_day(played, (scenario.voltage.v_min_pu, scenario.voltage.v_max_pu), f"{name}, {chosen}")
    save(figure, IMAGES / f"{name}_day.png", dpi=110)
    own = {"date": chosen, "rewards": {each.policy: round(each.reward, 4) for each in played}, "command": _command()}
    keep(measured._replace(facts={**facts, "day": own}))


def write_day(measured: Measured) -> str:
    """Return the picture of one day with its command and what each made of it."""
    name, facts = measured.name, measured.facts["day"]
    rewards = ", ".join(f"`{policy}` {reward:.2f}" for policy, reward in facts["rewards"].items())
    command = ["<!-- not run: a minute of search -->", "```bash", facts["command"], "```", ""]
    picture = f"![{facts['date']} on {name}: {', '.join(facts['rewards'])}](images/{name}_day.png)"
    return "\n".join([*command, f"Rewards of {facts['date']}: {rewards}.", "", picture, ""])


def write_ablations(measured: Measured) -> str:
    """Return the table of trainings, each beside the first of them, by what differs in its settings."""
    _, report, facts = measured
    trained = [name for name in report.names if report.seeds_of(name)]
    heads = ["training", "what differs", "score", "regret, USD/day", "reward", "less the first"]
    rows = []
    for name in trained:
        own = facts["trained"][name]
        changed, score = _say_changed(own), report.score(name)
        rows.append((
            _name(report, name), changed or "nothing", "" if score is None else f"{score:.3f}",
            _whole(report.regret_usd(name)) if report.optimum else "", _two(report.reward(name)),
            "" if name == trained[0] else _two(report.difference(name, trained[0]), "+"),
        ))  # fmt: skip
    command = ["<!-- not run: it takes trainings -->", "```bash", facts["command"], "```", ""]
    return "\n".join([*command, as_markdown(heads, rows, n_texts=2)])


PARTS = {
    "scores": write_scores, "grid": write_grid, "pictures": write_pictures, "day": write_day,
    "ablations": write_ablations,
}  # fmt: skip


def _name(report: EvaluationReport, name: str) -> str:
    return f"**{name}**" if report.seeds_of(name) else name


def _two(interval: Interval, sign: str = "") -> str:
    half = f" ± {interval.half:.2f}" if np.isfinite(interval.half) else ""
    return f"{interval.mean:{sign}.2f}{half}"


def _whole(interval: Interval) -> str:
    half = f" ± {interval.half:.0f}" if np.isfinite(interval.half) else ""
    return f"{abs(interval.mean) if round(interval.mean) == 0 else interval.mean:.0f}{half}"


def _brackets(found: Estimate | None) -> str:
    return "" if found is None else f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}]"


def _percent(found: Estimate) -> str:
    return f"{100 * found.value:.0f} [{100 * found.low:.0f}, {100 * found.high:.0f}]"


# -- check


def check_kept(measured: Measured) -> Iterator[str]:
    """Yield which claims the kept days contradict."""
    name, report, facts = measured
    told, scenario = report.provenance, load_scenario(report.provenance["scenario"], {"split": "test"})
    then, now = told["scenario_digest"], load_scenario(scenario, {"split": told["split"]}).digest()
    if then != now:
        yield f"{name}: measured on another {told['scenario']}: digest {then[:12]}, now {now[:12]}"
    elif scenario.read_profiles().digest() != told["profiles_digest"]:
        yield f"{name}: measured with other profiles"
    simulation = scenario.simulate()
    strangers = sorted(set(told["days"]) - set(simulation.days.tolist()))
    simulation.close()
    if strangers:
        yield f"{name}: days {strangers} are not of the test split: a policy may have seen them in training"
    for group, own in facts["trained"].items():
        keys = own.get("keys") or {"proposals": own.get("changed", {}).get("proposals")}
        trained_on = load_scenario(told["scenario"], {"split": "train", **keys}).digest()
        if own["scenario_digest"] not in (None, trained_on):
            yield f"{name}: {group} was trained on another scenario than what it says"
    if report.optimum is not None:
        best = report.rewards(report.optimum)
        for policy in report.kinds:
            above = report.rewards(policy) - best
            if above.max() > ABOVE:
                day = told["days"][int(above.argmax(axis=1)[0])]
                yield f"{name}: {policy} beats the optimum by {above.max():.4f} on day {day}"
    if not report.frame["finished"].all():
        yield f"{name}: days that were not finished are in the means"


def check_played(measured: Measured, runs: Sequence[str], days: int | None) -> Iterator[str]:
    """Play again those that need no run, and runs that are named, and yield where a day comes to something else."""
    name, report, _ = measured
    told = report.provenance
    known = [each for each, kind in report.kinds.items() if kind != "policy"]
    missing = [run for run in runs if Path(run).name not in report.kinds]
    yield from (f"{name}: {run} was not measured" for run in missing)
    there = [*known, *_load([run for run in runs if run not in missing])]
    chosen = pick_days(np.array(told["days"]), days or len(told["days"])).tolist()
    again = evaluate({"env_name": told["scenario"]}, there, days=chosen)
    for policy in again.kinds:
        kept, now = (
            dict(zip(own["day"].tolist(), own["reward"].tolist(), strict=True))
            for own in (frame[frame["policy"] == policy] for frame in (report.frame, again.frame))
        )
        off = {day: abs(kept[day] - now[day]) for day in kept if day in now}
        worst = max(off, key=lambda day: off[day], default=None)
        if worst is not None and off[worst] > SAME:
            anew = f"measure {name} --add {'--policies' if policy in known else '--runs'} {policy}"
            yield (
                f"{name}: {policy} on day {worst} comes to {now[worst]:.6f}, kept is {kept[worst]:.6f}; "
                f"where what plays is another one by now: {anew}"
            )


if __name__ == "__main__":
    main()
