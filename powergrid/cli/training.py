"""The commands that make policies: train and tune."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from powergrid.cli.evaluation import compare_on_test_split
from powergrid.cli.options import (
    Given,
    PoliciesOption,
    ScenarioArgument,
    SetOption,
    SettingsOption,
    check_folder,
    out,
    parse_overrides,
    tell,
    with_options,
)
from powergrid.errors import ScenarioError

if TYPE_CHECKING:
    from powergrid.training import RunResult

AlgorithmOption = Annotated[str | None, typer.Option(help="ppo (default), mappo, sac or dqn; see docs/algorithms.md.")]
WorkersOption = Annotated[int | None, typer.Option(min=0, help="Processes that step environments; 0: this one.")]
ResumeOption = Annotated[Path | None, typer.Option(metavar="RUN", help="Go on with this run folder.")]
TrustCheckpointOption = Annotated[
    bool, typer.Option("--trust-checkpoint", help="Resume a run made elsewhere: runs the code in it.")
]
AddressOption = Annotated[
    str | None, typer.Option(metavar="ADDRESS", help="Run on the Ray cluster there: HOST:PORT of its head, or auto.")
]
OutOption = Annotated[
    Path, typer.Option("--out", metavar="DIR", help="Where the run folder goes.", callback=check_folder)
]
NameOption = Annotated[str | None, typer.Option(help="Name of the run folder.")]
TestDaysOption = Annotated[int, typer.Option(min=0, help="Days of the test split played at the end; 0: none.")]


@with_options(without=["overrides"])
def train(
    scenario: Annotated[
        str | None, typer.Argument(help="Scenario or feeder, by name or file; not needed with --resume.")
    ] = None,
    policies: PoliciesOption = "shared",
    algorithm: AlgorithmOption = None,
    *,
    given: Given,
    workers: WorkersOption = None,
    address: AddressOption = None,
    iterations: Annotated[int | None, typer.Option(min=1, help="Iterations, in all with --resume.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of networks, exploration and episodes.")] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            help="How it begins and learns: residual, imitate, fast or page; unset: residual where each agent decides "
            "more numbers than positions, else fast."
        ),
    ] = None,
    resume: ResumeOption = None,
    trust_checkpoint: TrustCheckpointOption = False,
    overrides: SetOption = None,
    settings: SettingsOption = None,
    out_dir: OutOption = Path("runs"),
    name: NameOption = None,
    minutes: Annotated[float | None, typer.Option(min=0, help="Stop after this time.")] = None,
    test_days: TestDaysOption = 30,
) -> None:
    """Train on SCENARIO, leave a run folder, and compare the result on the test split."""
    own = {"preset": preset, "num_env_runners": workers, "iterations": iterations, "seed": seed}
    chosen = parse_overrides(settings or [], option="--setting")
    # An option of its own wins over --setting; one that is not given leaves a resumed run's setting as it was.
    chosen |= {key: value for key, value in own.items() if value is not None}
    if (scenario is None) == (resume is None):
        raise typer.BadParameter("give either a SCENARIO or --resume RUN")
    if resume is not None and algorithm is not None:
        raise typer.BadParameter("a run keeps its algorithm; leave --algorithm out")
    from powergrid.training import resume as resume_run
    from powergrid.training import train as train_run

    limit = None if minutes is None else minutes * 60.0
    if resume is not None:
        start = partial(resume_run, resume, trust=trust_checkpoint)
    else:
        env_config = given.env_config(str(scenario), overrides)
        _refuse_settings(env_config)
        start = partial(
            train_run, env_config, algorithm=algorithm or "ppo", policies=policies, out_dir=out_dir, name=name
        )
    _follow(partial(start, settings=chosen, time_limit_s=limit, verbose=given.verbose, address=address), test_days)


def _refuse_settings(env_config: Mapping[str, Any]) -> None:
    """Say of settings of the training among the scenario's keys which option takes them."""
    from powergrid.scenario import Scenario
    from powergrid.training.runs.settings import TrainSettings

    wrong = [key for key in env_config if key in TrainSettings.model_fields and key not in Scenario.model_fields]
    if wrong:
        said = [f"{key!r} is a setting of the training: --setting {key}={env_config[key]}" for key in wrong]
        raise ScenarioError("--set", said)


def _follow(start: Callable[..., RunResult], test_days: int) -> None:
    """Train before the user's eyes, say where it ended, and compare the result on the test split."""
    from powergrid.training.runs.display import TrainingDisplay

    with TrainingDisplay(out) as display:
        result = start(progress=display)
    tell(
        f"{result.stopped.capitalize()} after {result.iterations} iterations, {result.env_steps:,} environment steps: "
        f"{result.folder}"
    )
    if test_days and result.stopped != "interrupted":
        compare_on_test_split(result.folder, test_days)


SearchOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME[=RANGE]",
        help="Vary this instead of the whole space: lr, lr=1e-4..1e-2 or gamma=[0.98, 0.99]; repeatable.",
    ),
]
ConcurrentOption = Annotated[
    int | None, typer.Option(min=1, help="Most trials at once; default: as many as CPUs allow.")
]
FixedOption = Annotated[
    list[str] | None,
    typer.Option("--setting", metavar="NAME=VALUE", help="A setting that every trial has; repeatable."),
]


@with_options(without=["overrides"])
def tune(
    scenario: ScenarioArgument,
    samples: Annotated[int, typer.Option(min=1, help="Trials; the first has the settings as they are.")] = 8,
    iterations: Annotated[int, typer.Option(min=1, help="Training iterations of each trial.")] = 100,
    concurrent: ConcurrentOption = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the draws and of each trial's training.")] = 0,
    search: SearchOption = None,
    policies: PoliciesOption = "shared",
    algorithm: Annotated[str, typer.Option(help="ppo, mappo, sac or dqn; see docs/algorithms.md.")] = "ppo",
    *,
    given: Given,
    address: AddressOption = None,
    overrides: SetOption = None,
    settings: FixedOption = None,
    out_dir: OutOption = Path("runs"),
    name: NameOption = None,
) -> None:
    """Train on SCENARIO with several settings and rank them by return on validation days."""
    fixed = parse_overrides(settings or [], option="--setting")
    env_config = given.env_config(scenario, overrides)
    from powergrid.training import tune as tune_settings
    from powergrid.training.runs.display import TuningDisplay

    with TuningDisplay(out, samples, iterations) as display:
        result = tune_settings(
            env_config, fixed, samples=samples, iterations=iterations, concurrent=concurrent, seed=seed,
            search=search or (), algorithm=algorithm, policies=policies, out_dir=out_dir, name=name,
            progress=display, verbose=given.verbose, address=address,
        )  # fmt: skip
    out.print(result.table())
    tell(f"{result.stopped.capitalize()}: {result.folder}")
    if result.best is not None:
        varied = {"--algorithm": algorithm if algorithm != "ppo" else None, "--agents": given.agents,
                  "--add-der": given.add_der, "--policies": policies if policies != "shared" else None}  # fmt: skip
        command = _train_command(scenario, varied, overrides or [], fixed | result.best.drawn)
        tell(f"Train with the best settings:\n{command}")


def _train_command(scenario: str, options: Mapping[str, Any], overrides: list[str], settings: Mapping[str, Any]) -> str:
    """Write the command that trains with settings."""
    words = ["powergrid", "train", scenario]
    words += [str(word) for option, value in options.items() if value is not None for word in (option, value)]
    words += [word for item in overrides for word in ("--set", item)]
    for name, value in settings.items():  # JSON is YAML, which --setting reads
        words += ["--setting", f"{name}={value if isinstance(value, str) else json.dumps(value)}"]
    return shlex.join(words)
