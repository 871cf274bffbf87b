"""The commands of PowerGrid-Bench: frozen tasks, signed results, a leaderboard, and a replay that checks them."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from powergrid.cli.options import (
    PoliciesOption,
    SettingsOption,
    VerboseOption,
    counting,
    log_to_console,
    out,
    parse_overrides,
    tell,
)
from powergrid.errors import PowerGridError, ScenarioError

if TYPE_CHECKING:
    from powergrid.evaluation.benchmark import Benchmark, Entrant, Result, Task
    from powergrid.evaluation.benchmark.page import Method
    from powergrid.training.runs.seeds import Recipe, SeedRun

app = typer.Typer(
    help="PowerGrid-Bench: how good a policy is, on twelve frozen tasks; speed is powergrid bench.",
    no_args_is_help=True,
)
FilesArgument = Annotated[
    list[Path], typer.Argument(metavar="FILE...", help="Files of results; of a folder all that end in .json.")
]


@app.callback()
def _group() -> None:
    """PowerGrid-Bench: how good a policy is, on twelve frozen tasks; speed is powergrid bench."""


@app.command("list")
def list_tasks() -> None:
    """List the tasks: what is trained on and played, and the budget of a training."""
    from rich.box import SIMPLE
    from rich.table import Table

    from powergrid.evaluation.benchmark import read_benchmark

    benchmark = read_benchmark()
    table = Table(title=benchmark.full_name, box=SIMPLE)
    for heading in ("task", "what it asks", "steps", "minutes"):
        table.add_column(heading, justify="right" if heading in ("steps", "minutes") else "left", overflow="fold")
    for name, task in benchmark.tasks.items():
        table.add_row(name, task.title, f"{task.env_steps:,}", f"{task.minutes:g}")
    out.print(table)
    days = ", ".join(map(str, benchmark.days.test))
    tell(f"days {days} of the year that ships; seeds of training {', '.join(map(str, benchmark.training_seeds))}")


@app.command()
def run(
    task: Annotated[str, typer.Argument(metavar="TASK", help="A task; powergrid benchmark list names them.")],
    policy: Annotated[
        list[str] | None,
        typer.Option(
            "--policy", metavar="NAME|RUN", help="A baseline, or a run folder; repeatable. Runs go together by method."
        ),
    ] = None,
    train: Annotated[
        str | None, typer.Option("--train", metavar="ALGORITHM", help="Train what is not there yet, within the budget.")
    ] = None,
    policies: PoliciesOption = "shared",
    seeds: Annotated[
        list[int] | None, typer.Option("--seeds", help="Train with this seed; repeatable; the benchmark's if unset.")
    ] = None,
    preset: Annotated[str, typer.Option(help="Hyper-parameters of --train: fast, imitate, residual or page.")] = "fast",
    settings: SettingsOption = None,
    runs: Annotated[Path, typer.Option(metavar="DIR", help="Where runs that are trained go.")] = Path("runs"),
    name: Annotated[str | None, typer.Option(help="Name on the leaderboard of what was trained.")] = None,
    out_dir: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where results go.")] = Path("results"),
    key: Annotated[
        Path | None, typer.Option("--sign", metavar="KEY", help="Sign results with this private key of OpenSSH.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be trained and played, and stop.")] = False,
    verbose: VerboseOption = False,
) -> None:
    """Play the days of TASK with baselines and trained policies, and write a result for each."""
    from powergrid.evaluation.benchmark import play_task, read_benchmark
    from powergrid.evaluation.benchmark.page import Method
    from powergrid.evaluation.benchmark.signing import sign_file
    from powergrid.files import make_folder

    log_to_console(verbose)
    benchmark = read_benchmark()
    asked, given = benchmark.find(task), list(policy or ())
    asked.require_unchanged(task)
    if not given and train is None:
        raise ScenarioError("powergrid benchmark run", ["who plays? give --policy NAME|RUN, or --train ppo"])
    own = dict[str, list[str]]()
    if train is not None:
        method, chosen = Method(train, policies, preset), parse_overrides(settings or [], option="--setting")
        label = name or method.name
        folders = {seed: runs / f"{asked.scenario}-{label}-{seed}" for seed in seeds or benchmark.training_seeds}
        own[label] = [str(folder) for folder in folders.values()]
        _train(asked, method, {"preset": preset, **chosen}, folders, dry_run=dry_run)
    if dry_run:
        tell(_say_play(benchmark, task, [*given, *own]))
        return
    make_folder(out_dir)
    for entrant in _read_entrants(task, asked, given, name, own, out_dir):
        with counting(f"{task}, {entrant.name}") as advance:
            result = play_task(
                benchmark, task, entrant, command=shlex.join(["powergrid", *sys.argv[1:]]), progress=advance
            )
        tell(_say_summary(result))
        file = result.write(out_dir)
        tell(file)
        if key is not None:
            tell(sign_file(file, key))


@app.command()
def score(
    files: FilesArgument,
    page: Annotated[
        Path | None, typer.Option("--page", metavar="FILE", help="Write the leaderboard there as Markdown.")
    ] = None,
    left: Annotated[
        bool, typer.Option("--left", help="Say instead what nobody has run yet: each command and its time.")
    ] = False,
) -> None:
    """Put results side by side: scores and regret with intervals, task by task and over all of them."""
    from powergrid.evaluation.benchmark import read_benchmark
    from powergrid.evaluation.benchmark.page import find_open, make_page, say_minutes
    from powergrid.evaluation.benchmark.score import score_results
    from powergrid.files import write_whole

    board = score_results(read_benchmark(), files)
    for table in () if left else board.tables():
        out.print(table)
    for command, minutes in find_open(board) if left else ():
        tell(f"{say_minutes(minutes):>12}  {command}")
    if page is not None:
        write_whole(page, make_page(board))
        tell(page)


@app.command()
def submit(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The result, its policies in the folder beside it.")],
    place: Annotated[
        Path, typer.Option("--into", metavar="DIR", help="The folder of results in a checkout of PowerGrid.")
    ] = Path("docs/benchmark"),
) -> None:
    """Check that a result is complete, put it and its policies into their place, and say what to do next."""
    from powergrid.evaluation.benchmark import read_benchmark, read_result
    from powergrid.evaluation.benchmark.submit import submit_result

    if not place.is_dir():
        remedy = "say with --into where the docs/benchmark of a checkout is"
        raise ScenarioError("powergrid benchmark submit", [f"{place} is no folder; {remedy}"])
    result = read_result(file)
    for each in submit_result(read_benchmark(), file, result, place):
        tell(each)
    target = place / f"{result.stem}.json"
    tell(
        f"\nNext:\n  powergrid benchmark verify {target}\n  powergrid benchmark score {place} --page "
        f"{place.parent / 'leaderboard.md'}\nthen commit both and open a pull request that says how it was trained."
    )


@app.command()
def verify(
    files: FilesArgument,
    days: Annotated[
        int | None, typer.Option(min=1, help="Play so many days again, spread evenly; all if unset.")
    ] = None,
    signers: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Ask for a signature of one of these: allowed_signers of ssh-keygen."),
    ] = None,
    verbose: VerboseOption = False,
) -> None:
    """Play results again in the environment and compare every number.

    Exit status: 0 all stand, 1 one is refused.
    """
    from powergrid.evaluation.benchmark import read_benchmark
    from powergrid.evaluation.benchmark.score import find_files
    from powergrid.evaluation.benchmark.verify import UNVERIFIED

    log_to_console(verbose)
    refused = [file for file in find_files(files) if not _verify(read_benchmark(), file, days, signers)]
    tell("Not verified: " + "; ".join(UNVERIFIED) + ".")
    if refused:
        raise PowerGridError(f"refused: {', '.join(map(str, refused))}")


def _verify(benchmark: Benchmark, file: Path, days: int | None, signers: Path | None) -> bool:
    from powergrid.evaluation.benchmark import read_result, verify_result
    from powergrid.evaluation.benchmark.signing import check_signature, signature_of
    from powergrid.evaluation.benchmark.verify import hash_policies, weights_folders
    from powergrid.training import load_policy

    result = read_result(file)
    signed = check_signature(file, signers) if signers or signature_of(file).is_file() else None
    folders = weights_folders(file, result)
    weights = hash_policies(folders)
    policies = {seed: load_policy(folders[seed]) for seed in weights}
    with counting(f"{result.task}, {result.player.name}") as advance:
        verdict = verify_result(benchmark, result, policies, weights, days=days, progress=advance)
    told = f"{len(verdict.days)} of {len(result.days)} days played again" if verdict.days else "not played"
    tell(f"{file}: {'stands' if verdict.stands else 'REFUSED'}, {told}, signed by {signed or 'nobody'}")
    for line in (*map(str, verdict.problems), *verdict.notes):
        tell(f"  {line}")
    return verdict.stands


def _train(task: Task, method: Method, given: Mapping[str, Any], folders: Mapping[int, Path], *, dry_run: bool) -> None:
    """Train what is not there yet with each seed, within the budget, and go on with what stopped."""
    from powergrid.evaluation.benchmark.page import estimate_minutes, say_minutes
    from powergrid.training.runs.display import TrainingDisplay
    from powergrid.training.runs.seeds import Recipe, find_runs, fit_settings

    settings = fit_settings(task.scenario, method.algorithm, given, task.env_steps)
    recipe = Recipe(task.scenario, method.algorithm, method.policies, settings, task.minutes)
    runs = find_runs(recipe, folders)
    waiting = [run for run in runs if run.state != "trained"]
    minutes = estimate_minutes(task, method, recipe.env_steps)
    each = f"of {recipe.env_steps:,} environment steps, about {say_minutes(minutes)} each"
    limit = f"at most {task.minutes:g} min"
    tell(f"{len(waiting)} of {len(runs)} trainings to do, {each} on two cores, {limit}:")
    for run in waiting:
        tell(f"  {_say_training(recipe, given, run)}")
        if not dry_run:
            with TrainingDisplay(out) as display:
                run.train(display)


def _say_training(recipe: Recipe, given: Mapping[str, Any], run: SeedRun) -> str:
    """Return the command that trains what is about to be trained."""
    words = ["powergrid", "train"]
    if run.state == "stopped":
        words += ["--resume", str(run.folder)]
    else:
        words += [recipe.scenario, "--algorithm", recipe.algorithm, "--policies", recipe.policies]
        words += ["--seed", str(run.seed), "--out", str(run.folder.parent), "--name", run.folder.name]
        own = {**given, "iterations": recipe.settings.iterations}
        words += [word for key, value in own.items() for word in ("--setting", f"{key}={json.dumps(value)}")]
    return shlex.join([*words, "--minutes", f"{run.minutes:.4g}", "--test-days", "0"])


def _say_play(benchmark: Benchmark, name: str, players: Sequence[str]) -> str:
    """Return who plays and how long baselines take, what is measured of it; what is trained takes seconds."""
    from powergrid.evaluation import BASELINES
    from powergrid.evaluation.benchmark.page import estimate_play, say_minutes

    told = [
        f"{each} ({say_minutes(estimate_play(benchmark, name, each))})" if each in BASELINES else each
        for each in players
    ]
    return f"then play {len(benchmark.days.test)} days of {name} with {', '.join(told)}"


def _read_entrants(
    name: str, task: Task, given: Sequence[str], label: str | None, trained: Mapping[str, Sequence[str]], out_dir: Path
) -> list[Entrant]:
    """Return who plays: each baseline by itself, runs of one method together, by their seeds.

    Policies are written beside the results and read again from there, so that what plays is what a verifier has.
    """
    from powergrid.evaluation import BASELINES
    from powergrid.evaluation.benchmark import Entrant

    baselines = [each for each in given if each in BASELINES or not ("/" in each or Path(each).exists())]
    runs: dict[str, list[Path]] = {}
    for each in given:
        if each not in baselines:
            runs.setdefault(label or _name_of(Path(each)), []).append(Path(each))
    for method, own in trained.items():
        runs.setdefault(method, []).extend(map(Path, own))
    return [
        *(Entrant(each) for each in baselines),
        *(_read_method(method, folders, task, out_dir / f"{name}.{method}") for method, folders in runs.items()),
    ]


def _name_of(run: Path) -> str:
    """Return the name that a run's method has where none is given: algorithm, and how agents share policies."""
    from powergrid.training.runs.records import name_of_training, read_manifest

    return name_of_training(read_manifest(run)).lower().replace(" ", "_")


def _read_method(method: str, runs: Sequence[Path], task: Task, folder: Path) -> Entrant:
    from powergrid.evaluation.benchmark import Entrant
    from powergrid.evaluation.benchmark.tasks import SEES
    from powergrid.evaluation.benchmark.verify import hash_policy
    from powergrid.training import load_policy
    from powergrid.training.runs.records import read_manifest

    policies, weights, training, sees = {}, {}, {}, list[dict[str, Any]]()
    for run in runs:
        manifest = read_manifest(run)
        seed, policy = str(manifest["settings"].get("seed")), load_policy(run)
        if seed in policies:
            raise ScenarioError(
                "powergrid benchmark run", [f"{run}: there is a run of seed {seed} in {method} already"]
            )
        sees.append({key: value for key, value in manifest["env_config"].items() if key in SEES})
        training[seed] = _describe_training(run, manifest, policy, task, sees[-1])
        policy.save(folder / seed)
        policies[seed], weights[seed] = load_policy(folder / seed), hash_policy(folder / seed)
    if any(each != sees[0] for each in sees):
        raise ScenarioError("powergrid benchmark run", [f"{method}: its runs do not see alike: {sees}"])
    return Entrant(method, policies, sees[0], weights, training)


def _describe_training(run: Path, manifest: Mapping[str, Any], policy: Any, task: Task, sees: Mapping[str, Any]) -> Any:
    from powergrid.evaluation.benchmark.result import Training
    from powergrid.evaluation.players.trained import find_differences
    from powergrid.training.runs.records import find_changed_settings, read_effort

    env_steps, minutes = read_effort(run, manifest)
    if not task.holds(env_steps, minutes):
        given = f"the task gives {task.env_steps:,} and {task.minutes:g}: the result cannot be submitted"
        tell(f"{run}: took {env_steps:,} environment steps and {minutes:.1f} minutes; {given}")
    return Training(
        algorithm=manifest["algorithm"],
        env_steps=env_steps,
        minutes=round(minutes, 2),
        settings=find_changed_settings(manifest),
        differs=[str(each) for each in find_differences(policy, task.build_trained(sees))],
        versions=(manifest["sessions"] or [{}])[-1].get("versions", {}),
    )


def _say_summary(result: Result) -> str:
    found = result.summary
    told = [f"{result.player.name}: reward {found.reward:.3f}"]
    told += [f"score {found.score:.3f}"] if found.score is not None else []
    told += [f"regret {found.regret_usd_per_day:.0f} USD/day"] if found.regret_usd_per_day is not None else []
    return ", ".join(told)
