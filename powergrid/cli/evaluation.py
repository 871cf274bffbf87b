"""The commands that compare: policies on the same days, runs as they learned, and what things cost on this machine."""

from __future__ import annotations

import ast
import glob
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

import powergrid
from powergrid.cli.options import (
    DaysOption,
    GivenWithPolicies,
    ScenarioArgument,
    SetOption,
    SplitOption,
    TablesOption,
    counting,
    err,
    out,
    tell,
    with_options,
)
from powergrid.errors import PowerGridError, ScenarioError, describe_unknown

_NO_BENCHMARKS = frozenset({"__init__", "common"})


@with_options(without=["overrides"])
def evaluate(
    scenario: ScenarioArgument,
    more: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME|RUN]...", help="More policies, as a shell spells out runs/*.")
    ] = None,
    policy: Annotated[
        list[str] | None,
        typer.Option(
            "--policy", metavar="NAME|RUN", help="A baseline's name, a run folder or a pattern of them; repeatable."
        ),
    ] = None,
    each_seed: Annotated[
        bool, typer.Option("--each-seed", help="A row for each seed of a training, not one for all.")
    ] = False,
    *,
    given: GivenWithPolicies,
    split: SplitOption = "test",
    days: DaysOption = 7,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the days' choice and noise.")] = 0,
    out_dir: TablesOption = None,
    feeder: Annotated[
        list[str] | None,
        typer.Option("--feeder", metavar="FEEDER", help="Play on this feeder, by name or master file; repeatable."),
    ] = None,
    parts: Annotated[bool, typer.Option("--parts", help="Show what each term adds to the reward.")] = False,
    overrides: SetOption = None,
) -> None:
    """Play policies on the same days of SCENARIO and compare them, also on feeders it was not made for.

    Runs that differ in nothing but their seed are one row, with intervals over seeds and days.
    """
    named = spell_out([*(policy or []), *(more or [])])
    report = play(
        given.env_config(scenario, overrides),
        named,
        split,
        days,
        seed,
        feeder or (),
        given.view,
        given.trust_checkpoint,
    )
    report = report.each_seed() if each_seed else report
    _print_report(report, parts=parts)
    if out_dir is not None:
        for file in [*report.write(out_dir), *_draw_comparison(report, out_dir)]:
            tell(file)


def spell_out(policies: Sequence[str]) -> list[str]:
    """Return names of baselines and folders of runs, patterns as runs/shared-* spelt out.

    Raises:
        ScenarioError: no run has a name like a pattern.
    """
    from powergrid.files import path_of

    found: list[str] = []
    problems: list[str] = []
    for each in policies:
        if not glob.has_magic(each) or path_of(each).exists():
            found.append(each)
            continue
        there = sorted(folder for folder in glob.glob(str(path_of(each))) if Path(folder).is_dir())
        found += there
        if not there:
            problems.append(f"no run has a name like {each!r} from {Path.cwd()}")
    if problems:
        raise ScenarioError("policies", problems)
    return found


def _draw_comparison(report: Any, folder: Path) -> list[Path]:
    """Draw performance profiles and probabilities of improvement where there is somebody to compare with."""
    from powergrid.evaluation.drawing import draw_improvements, draw_profiles, save

    files = []
    several = getattr(report, "reports", None)  # a comparison has one for each feeder
    for where, each in {folder: report}.items() if several is None else ((folder / n, r) for n, r in several.items()):
        profiles, best = each.profiles(), each.best_baseline
        if profiles and len(profiles) > 1:
            files.append(save(draw_profiles(profiles, *each.scale), where / "profiles.png"))
        others = [name for name in each.names if name != best]
        if best is not None and others:
            improvements = {name: each.improvement(name, best) for name in others}
            files.append(save(draw_improvements(improvements, best), where / "improvement.png"))
    return files


def curves(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run folders of one scenario.")],
    file: Annotated[Path, typer.Option("--out", metavar="FILE", help="The picture: .png or .svg.")] = Path(
        "curves.png"
    ),
    column: Annotated[
        str, typer.Option(metavar="NAME", help="Column of progress.csv.")
    ] = "validation/episode_return_mean",
    baseline: Annotated[
        list[str] | None,
        typer.Option("--baseline", metavar="NAME", help="Play this baseline on the validation's days; repeatable."),
    ] = None,
    title: Annotated[str | None, typer.Option(help="What stands above the picture.")] = None,
) -> None:
    """Draw the learning curves of RUNs, those trained alike in one colour with their mean."""
    from powergrid.evaluation import baseline_returns
    from powergrid.evaluation.drawing import Curve, check_suffix, draw_learning_curves, save
    from powergrid.scenario.claims import settle_claims
    from powergrid.training.runs.loop import validation_days
    from powergrid.training.runs.records import MANIFEST, VALIDATION_SCORE, read_curves

    check_suffix(file)
    read = read_curves(runs, column)
    if baseline and column != VALIDATION_SCORE:
        raise typer.BadParameter(f"--baseline goes with --column {VALIDATION_SCORE}: these are returns of its days")
    manifest = read[0].manifest
    levels = {}
    if baseline:
        env_config = settle_claims(runs[0] / MANIFEST, manifest["env_config"])  # the run may come from anywhere
        levels = baseline_returns(env_config, baseline, validation_days(manifest))
    groups: dict[str, list[Curve]] = {}
    for each in read:
        groups.setdefault(each.label, []).append(Curve(each.env_steps, each.values))
    figure = draw_learning_curves(
        groups, title=title or str(manifest["scenario"]), value_label=_COLUMN_LABELS.get(column, column), levels=levels
    )
    tell(save(figure, file))


#: What stands at the axis for the columns that are drawn most.
_COLUMN_LABELS = {
    "validation/episode_return_mean": "return of a validation day, summed over agents",
    "episode_return_mean": "return of a training episode, summed over agents",
}


def play(
    env_config: Mapping[str, Any],
    policies: Sequence[str],
    split: str,
    days: int,
    seed: int,
    feeders: Sequence[str] = (),
    view: str = "agents",
    trust: bool = False,
) -> Any:
    """Return the report of policies' play, with a bar on a terminal while it lasts."""
    from powergrid.evaluation import evaluate as evaluate_policies
    from powergrid.evaluation import evaluate_feeders
    from powergrid.scenario import scenario_from_config

    scenario = scenario_from_config(env_config)
    players = load_policies(policies, scenario, view, trust)
    with counting("evaluating") as advance:
        if feeders or scenario.feeders:
            return evaluate_feeders(scenario, players, feeders, split=split, days=days, seed=seed, progress=advance)
        players += _optimum_if_kept(scenario, players, split, days, seed)
        return evaluate_policies(scenario, players, split=split, days=days, seed=seed, progress=advance)


def _optimum_if_kept(scenario: Any, players: Sequence[Any], split: str, days: int, seed: int) -> list[str]:
    """Return the optimum's name where the optima of all days were found before, so that playing it costs nothing."""
    from powergrid.evaluation.optimum.report import recall_optima
    from powergrid.grid.profiles.profiles import pick_days, split_days

    if "no_control" not in players or "optimum" in players:
        return []
    chosen = pick_days(split_days(scenario.read_profiles(), split=split), days)
    return ["optimum"] if recall_optima(scenario, chosen.tolist(), seed) else []


def load_policies(given: Sequence[str], scenario: Any, view: str = "agents", trust: bool = False) -> list[Any]:
    """Load what is the folder of a run or checkpoint, and tell what differs in ``scenario`` from its training.

    Names go on as they are. What is a function or class of the user's own has the ``view``; a file of another library
    is loaded with ``trust`` alone.
    """
    from powergrid.adapters import is_policy_file, load_policy_file
    from powergrid.evaluation import BASELINES
    from powergrid.evaluation.players.callables import is_callable_reference, load_callable
    from powergrid.evaluation.players.trained import find_all_differences
    from powergrid.files import path_of

    if view not in ("agents", "central"):
        raise ScenarioError("--view", [describe_unknown("view", view, ["agents", "central"])])
    players: list[Any] = []
    for each in given:
        taken = {player if isinstance(player, str) else player[0] for player in players} | set(BASELINES)
        if each not in BASELINES and is_policy_file(each):
            label = Path(each).stem
            players.append((each if label in taken else label, load_policy_file(each, trust=trust)))
            continue
        if each not in BASELINES and is_callable_reference(each):
            label = each.rpartition(":")[2]
            own = load_callable(each, "central" if view == "central" else "agents")
            players.append((each if label in taken else label, own))
            continue
        # What is neither a baseline nor there is most likely a baseline misspelt; evaluate() says the nearest.
        if each in BASELINES or not ("/" in each or path_of(each).exists()):
            players.append(each)
            continue
        from powergrid.training import load_policy  # only now: baselines alone need no torch

        label = Path(each).name
        players.append((each if label in taken else label, load_policy(each)))
    for name, differences in find_all_differences(players, scenario).items():
        err.print(f"{name} was trained on something else; what differs in {scenario.name}:", **_PLAIN)
        for difference in differences:
            err.print(f"  {difference}", **_PLAIN)
    return players


_PLAIN: dict[str, Any] = {"highlight": False, "markup": False, "soft_wrap": True}


def compare_on_test_split(run: Path, days: int) -> None:
    """Print the trained policy beside the baselines, and keep the tables in the run folder."""
    from powergrid.evaluation import baseline_names
    from powergrid.training.runs.records import read_manifest

    env_config = read_manifest(run)["env_config"]
    # With every baseline: a return says nothing alone.
    report = play(env_config, [*baseline_names(), str(run)], "test", days, 0)
    _print_report(report)
    report.write(run / "test")


def _print_report(report: Any, *, parts: bool = False) -> None:
    """Print the tables, feeder by feeder where there are several, with the reward's parts where they are wanted."""
    several = getattr(report, "reports", None)  # a comparison has one for each feeder
    for each in [report] if several is None else several.values():
        out.print(each.table())
        out.print(each.grid_table())
        if each.optimum is not None:
            out.print(each.optimum_table())
        if parts:
            out.print(each.parts_table())
    if several is not None:
        out.print(report.table())


def bench(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help="Benchmarks by name; all if none is given.")
    ] = None,
    list_only: Annotated[bool, typer.Option("--list", help="Say what there is to run, and run nothing.")] = False,
    quick: Annotated[
        bool, typer.Option("--quick", help="One scenario and few rounds of each: shows that they run.")
    ] = False,
) -> None:
    """Measure speed on this machine: run the benchmarks of a source checkout, each in a process of its own.

    How good a policy is: powergrid benchmark.

    Exit status: 0 all ran, 1 one failed. Options of one alone: python -m benchmarks.NAME --help.
    """
    folder = _find_benchmarks()
    known = {file.stem: file for file in sorted(folder.glob("*.py")) if file.stem not in _NO_BENCHMARKS}
    problems = [describe_unknown("benchmark", name, known) for name in names or () if name not in known]
    if problems:
        raise ScenarioError("powergrid bench", problems)
    chosen = list(names or known)
    if list_only:
        for name in chosen:
            out.print(f"{name:10s} {_summary(known[name])}", highlight=False, soft_wrap=True, markup=False)
        return
    failed = []
    for name in chosen:
        out.print(f"== {name}", highlight=False, markup=False)
        # In a process of its own: engines, caches in memory and threads of one would show in the next one's figures.
        command = [sys.executable, "-m", f"benchmarks.{name}", *(["--quick"] if quick else [])]
        if subprocess.run(command, cwd=folder.parent, check=False).returncode:
            failed.append(name)
    if failed:
        raise PowerGridError(f"benchmarks that failed: {', '.join(failed)}")


def _find_benchmarks() -> Path:
    """Find the folder of the benchmarks, which lies beside the package in a source checkout.

    Raises:
        PowerGridError: the package is not that of a checkout.
    """
    folder = Path(powergrid.__file__).resolve().parents[1] / "benchmarks"
    # An installed package may lie beside any other's folder of that name.
    if not (folder / "common.py").is_file():
        raise PowerGridError(
            f"no benchmarks in {folder}: they come with the source, not with the installed package; in a checkout run "
            "pip install -e . and powergrid bench"
        )
    return folder


def _summary(file: Path) -> str:
    """Return the first line of a benchmark's docstring."""
    # Read, not imported: some import Ray and torch, which takes seconds.
    return (ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or "").partition("\n")[0]
