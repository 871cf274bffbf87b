"""The ``powergrid`` command: train, evaluate, list, check and describe; every computation is in the library."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from rich.console import Console
from rich.markup import escape
from rich.table import Table

import powergrid
from powergrid.errors import PowerGridError, ScenarioError

app = typer.Typer(
    name="powergrid",
    help="Train and evaluate reinforcement-learning agents on OpenDSS feeders.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
out = Console()
err = Console(stderr=True)

SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a scenario key, a.b=value in YAML; repeatable."),
]
AgentsOption = Annotated[
    str | None,
    typer.Option(
        "--agents", metavar="LAYOUT", help="Form agents per_zone, per_device, per_class, per_phase or single."
    ),
]
AddDerOption = Annotated[
    float | None,
    typer.Option(
        "--add-der", metavar="PENETRATION", help="Place panels and batteries: rated sun over nominal demand, as 0.3."
    ),
]
SplitOption = Annotated[str, typer.Option(help="Split of the profiles: train, validation or test.")]
VerboseOption = Annotated[bool, typer.Option("--verbose", "--debug", help="Show tracebacks and all library output.")]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; a PowerGrid error is told in one block and ends with exit code 1."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        app(given, prog_name="powergrid")
    except PowerGridError as error:
        if {"--verbose", "--debug"} & set(given):
            raise
        err.print(f"{type(error).__name__}: {escape(str(error))}", highlight=False, soft_wrap=True, style="red")
        sys.exit(1)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"powergrid {powergrid.__version__}")
        raise typer.Exit()


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Train and evaluate reinforcement-learning agents on OpenDSS feeders."""


@app.command()
def train(
    scenario: Annotated[
        str | None, typer.Argument(help="Scenario or feeder, by name or file; not needed with --resume.")
    ] = None,
    policies: Annotated[
        str, typer.Option(help="shared: one policy for equal agents; independent: one for each agent.")
    ] = "shared",
    algorithm: Annotated[
        str | None, typer.Option(help="ppo (default), mappo, sac or dqn; see docs/algorithms.md.")
    ] = None,
    agents: AgentsOption = None,
    add_der: AddDerOption = None,
    workers: Annotated[int | None, typer.Option(min=0, help="Processes that step environments; 0: this one.")] = None,
    iterations: Annotated[int | None, typer.Option(min=1, help="Iterations, in all with --resume.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of networks, exploration and episodes.")] = None,
    preset: Annotated[str | None, typer.Option(help="Hyper-parameters: fast (default) or page.")] = None,
    resume: Annotated[Path | None, typer.Option(metavar="RUN", help="Go on with this run folder.")] = None,
    trust_checkpoint: Annotated[
        bool, typer.Option("--trust-checkpoint", help="Resume a run made elsewhere: runs the code in it.")
    ] = False,
    overrides: SetOption = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--setting", metavar="NAME=VALUE", help="A training setting, for example lr=1e-4; repeatable."),
    ] = None,
    out_dir: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where run folders go.")] = Path("runs"),
    name: Annotated[str | None, typer.Option(help="Name of the run folder.")] = None,
    minutes: Annotated[float | None, typer.Option(min=0, help="Stop after this time.")] = None,
    test_days: Annotated[int, typer.Option(min=0, help="Days of the test split played at the end; 0: none.")] = 30,
    verbose: VerboseOption = False,
) -> None:
    """Train on SCENARIO, leave a run folder, and compare the result on the test split."""
    chosen = parse_overrides(settings or [], option="--setting")
    for key, value in {"preset": preset, "num_env_runners": workers, "iterations": iterations, "seed": seed}.items():
        if value is not None:
            chosen[key] = value
    if (scenario is None) == (resume is None):
        raise typer.BadParameter("give either a SCENARIO or --resume RUN")
    if resume is not None and algorithm is not None:
        raise typer.BadParameter("a run keeps its algorithm; leave --algorithm out")
    from powergrid.training import resume as resume_run
    from powergrid.training import train as train_run
    from powergrid.training.display import TrainingDisplay

    _log_to_console(verbose)
    limit = None if minutes is None else minutes * 60.0
    with TrainingDisplay(out) as display:
        if resume is not None:
            result = resume_run(
                resume, settings=chosen, time_limit_s=limit, progress=display, verbose=verbose, trust=trust_checkpoint
            )
        else:
            env_config = _env_config(str(scenario), overrides, agents, add_der)
            result = train_run(
                env_config, chosen, algorithm=algorithm or "ppo", policies=policies, out_dir=out_dir, name=name,
                time_limit_s=limit, progress=display, verbose=verbose,
            )  # fmt: skip
    out.print(
        f"{result.stopped.capitalize()} after {result.iterations} iterations, {result.env_steps:,} environment steps: "
        f"{escape(str(result.folder))}",
        highlight=False,
        soft_wrap=True,
    )
    if test_days and result.stopped != "interrupted":
        _compare_on_test_split(result.folder, test_days)


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="Run folder or checkpoint.")],
    format: Annotated[str, typer.Option(help="onnx or torchscript.")] = "onnx",
    out_dir: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Where the files go; RUN/export by default.")
    ] = None,
    trust_checkpoint: Annotated[
        bool, typer.Option("--trust-checkpoint", help="Import the environment that a run made elsewhere names.")
    ] = False,
) -> None:
    """Write the policy of RUN for use without PowerGrid: a file an agent, and a JSON of all inputs and outputs."""
    from powergrid.training import export_run

    for file in export_run(run, out_dir or run / "export", format=format, trust=trust_checkpoint):  # type: ignore[arg-type]
        out.print(str(file), highlight=False, soft_wrap=True, markup=False)


@app.command()
def evaluate(
    scenario: Annotated[str, typer.Argument(help="Scenario or feeder, by name or file.")],
    policy: Annotated[
        list[str], typer.Option("--policy", metavar="NAME|RUN", help="A baseline's name or a run folder; repeatable.")
    ],
    agents: AgentsOption = None,
    add_der: AddDerOption = None,
    split: SplitOption = "test",
    days: Annotated[int, typer.Option(min=1, help="Days to play.")] = 7,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the days' choice and noise.")] = 0,
    out_dir: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Write CSV and JSON tables there.")
    ] = None,
    feeder: Annotated[
        list[str] | None,
        typer.Option("--feeder", metavar="FEEDER", help="Play on this feeder, by name or master file; repeatable."),
    ] = None,
    overrides: SetOption = None,
    verbose: VerboseOption = False,
) -> None:
    """Play policies on the same days of SCENARIO and compare them, also on feeders it was not made for."""
    _log_to_console(verbose)
    report = _evaluate(_env_config(scenario, overrides, agents, add_der), policy, split, days, seed, feeder or ())
    _print_report(report)
    if out_dir is not None:
        for file in report.write(out_dir):
            out.print(str(file), highlight=False, soft_wrap=True)


@app.command("list")
def list_all() -> None:
    """List the scenarios and feeders that come with PowerGrid."""
    from powergrid.grid.feeder import list_feeders
    from powergrid.scenario import list_scenarios

    for title, names in (("scenarios", list_scenarios()), ("feeders", list_feeders())):
        out.print(f"{title}:", highlight=False)
        for each in names:
            out.print(f"  {each}", highlight=False, soft_wrap=True)


@app.command()
def check(
    feeder: Annotated[str, typer.Argument(help="Feeder name or master file.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole report as JSON.")] = False,
    model_root: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder that no file is read outside of.")
    ] = None,
    trust: Annotated[bool, typer.Option("--trust", help="Let the feeder do more than describe a circuit.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Fail on warnings as on errors.")] = False,
    timeout: Annotated[float, typer.Option(min=1.0, metavar="SECONDS", help="When to give up.")] = 120.0,
) -> None:
    """Compile and solve FEEDER in a process of its own and report all that is wrong with it.

    Exit status: 0 usable, 1 errors (or warnings with --strict), 3 OpenDSS crashed or came to no end.
    """
    from powergrid.check import check_feeder
    from powergrid.check.display import report_lines

    report = check_feeder(feeder, model_root=model_root, trust=trust, timeout_s=timeout)
    if as_json:
        typer.echo(json.dumps(report.as_dict(), indent=2, ensure_ascii=False))
    else:
        for style, line in report_lines(report, width=min(out.width, 100) if out.is_terminal else 100):
            out.print(escape(line), style=style or None, highlight=False, soft_wrap=True)
    raise typer.Exit(report.exit_code(strict=strict))


@app.command()
def describe(
    scenario: Annotated[str, typer.Argument(help="Scenario or feeder, by name or file.")],
    agents: AgentsOption = None,
    add_der: AddDerOption = None,
    write: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write all of it as a scenario file to edit, as .yaml.")
    ] = None,
    draw: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw the one-line diagram, as .png or .svg.")
    ] = None,
    profile: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw voltages over distance, as .png or .svg.")
    ] = None,
    day: Annotated[int | None, typer.Option(min=0, help="Day to draw; the first of the split.")] = None,
    step: Annotated[
        int | None, typer.Option(min=0, help="Steps played without control before drawing; half the episode.")
    ] = None,
    overrides: SetOption = None,
    verbose: VerboseOption = False,
) -> None:
    """Show SCENARIO's agents, devices, observations and actions, draw it, or write it as a file.

    Of a feeder, what is discovered on it; it is drawn as its model stands where nothing else is asked for.
    """
    _log_to_console(verbose)
    env_config = _env_config(scenario, overrides, agents, add_der)
    if draw is not None or profile is not None:
        _draw(scenario, {key: value for key, value in env_config.items() if key != "env_name"},
              draw, profile, day, step)  # fmt: skip
        return
    if day is not None or step is not None:
        raise typer.BadParameter("--day and --step say what is drawn: give --draw FILE or --profile FILE too")
    from powergrid.envs import NetworkedGridEnv
    from powergrid.scenario import explain_config, write_scenario

    resolved, notes = explain_config(env_config)
    if write is not None:
        out.print(str(write_scenario(resolved, write, notes)), highlight=False, soft_wrap=True, markup=False)
        return
    env = NetworkedGridEnv({"scenario": resolved})
    try:
        description = env.describe()
    finally:
        env.close()
    for field in fields(description):
        frame = getattr(description, field.name)
        if len(frame) or field.name != "placement":
            out.print(_as_table(field.name, frame))
    if notes:
        out.print("\nfound and left out:")
    for note in notes:
        out.print(f"  - {note}", highlight=False, markup=False)


def _env_config(
    scenario: str, overrides: Sequence[str] | None, agents: str | None, add_der: float | None
) -> dict[str, Any]:
    """Give the env_config that the options of a command mean."""
    keys = parse_overrides(overrides or [])
    if agents is not None:
        given = keys.get("agents")
        keys["agents"] = {**given, "layout": agents} if isinstance(given, dict) else agents
    if add_der is not None:
        given = keys.get("add_der")
        keys["add_der"] = {**(given if isinstance(given, dict) else {}), "penetration": add_der}
    return {"env_name": scenario, **keys}


def _draw(
    reference: str, overrides: Mapping[str, Any], diagram: Path | None, profile: Path | None,
    day: int | None, step: int | None,
) -> None:  # fmt: skip
    """Write the pictures of a scenario, or of a bare feeder as its model stands."""
    from powergrid.evaluation import drawing
    from powergrid.grid.feeder import list_feeders

    for file in (diagram, profile):
        if file is not None:
            drawing.check_suffix(file)
    if not overrides and (reference in list_feeders() or reference.lower().endswith(".dss")):
        if day is not None or step is not None:
            raise typer.BadParameter(
                "a bare feeder is drawn as its model stands; for a day of what is discovered on it give --agents too"
            )
        state = drawing.look_at_feeder(reference)
    else:
        state = drawing.look_at_scenario({"env_name": reference, **overrides}, day=day, step=step)
    for file, make in ((diagram, drawing.draw_network), (profile, drawing.draw_voltage_profile)):
        if file is not None:
            out.print(str(drawing.save(make(state), file)), highlight=False, soft_wrap=True, markup=False)


def _as_table(title: str, frame: Any) -> Table:
    """Show a pandas table: numbers short, nothing cut."""
    table = Table(title=title, title_justify="left", box=None, header_style="bold")
    for column in frame.columns:
        table.add_column(str(column), overflow="fold")
    for row in frame.itertuples(index=False):
        table.add_row(*(f"{cell:g}" if isinstance(cell, float) else escape(str(cell)) for cell in row))
    return table


def parse_overrides(items: Sequence[str], option: str = "--set") -> dict[str, Any]:
    """Turn ``a.b=value`` items into nested keys; values are read as YAML.

    Raises:
        ScenarioError: An item has no ``=``, a value is no YAML, or two items contradict.
    """
    nested: dict[str, Any] = {}
    problems: list[str] = []
    for item in items:
        path, sign, text = item.partition("=")
        keys = path.split(".")
        if not sign or not all(keys):
            problems.append(f"{item!r} is not KEY=VALUE, for example rewards.voltage=2.0")
            continue
        try:
            value = _yaml_value(text)
        except yaml.YAMLError as error:
            problems.append(f"{item!r}: the value is no YAML: {str(error).splitlines()[0]}")
            continue
        level: Any = nested
        for key in keys[:-1]:
            level = level.setdefault(key, {}) if isinstance(level, dict) else None
        if not isinstance(level, dict):
            problems.append(f"{item!r} goes below a key that another item gave a value")
            continue
        level[keys[-1]] = value
    if problems:
        raise ScenarioError(option, problems)
    return nested


def _yaml_value(text: str) -> Any:
    """Read a YAML value; ``1e-4``, a string to YAML 1.1, is a number here."""
    value = yaml.safe_load(text)
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _evaluate(
    env_config: Mapping[str, Any],
    policies: Sequence[str],
    split: str,
    days: int,
    seed: int,
    feeders: Sequence[str] = (),
) -> Any:
    from rich.progress import Progress

    from powergrid.evaluation import evaluate as evaluate_policies
    from powergrid.evaluation import evaluate_feeders
    from powergrid.scenario import scenario_from_config

    players = _load_policies(policies)
    scenario = scenario_from_config(env_config)
    with Progress(console=err, transient=True, disable=not err.is_terminal) as bar:
        task = bar.add_task("evaluating", total=None)

        def advance(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        if feeders or scenario.feeders:
            return evaluate_feeders(scenario, players, feeders, split=split, days=days, seed=seed, progress=advance)
        return evaluate_policies(scenario, players, split=split, days=days, seed=seed, progress=advance)


def _load_policies(given: Sequence[str]) -> list[Any]:
    """Load what is the folder of a run or checkpoint; names go on as they are."""
    from powergrid.evaluation import baseline_names

    players: list[Any] = []
    for each in given:
        if each in baseline_names() or not ("/" in each or Path(each).expanduser().exists()):
            players.append(each)
            continue
        from powergrid.training import load_policy

        label = Path(each).name
        taken = {player if isinstance(player, str) else player[0] for player in players} | set(baseline_names())
        players.append((each if label in taken else label, load_policy(each)))
    return players


def _compare_on_test_split(run: Path, days: int) -> None:
    """Print the trained policy beside the baselines, and keep the tables in the run folder."""
    from powergrid.evaluation import baseline_names
    from powergrid.training.run import read_manifest

    env_config = read_manifest(run)["env_config"]
    report = _evaluate(env_config, [*baseline_names(), str(run)], "test", days, 0)
    _print_report(report)
    report.write(run / "test")


def _print_report(report: Any) -> None:
    """Print the table, feeder by feeder where there are several."""
    for each in getattr(report, "reports", {}).values():
        out.print(each.table())
    out.print(report.table())


def _log_to_console(verbose: bool) -> None:
    """Show what the library warns of, as plain lines on stderr."""
    from rich.logging import RichHandler

    log = logging.getLogger("powergrid")
    if not any(isinstance(handler, RichHandler) for handler in log.handlers):
        log.addHandler(
            RichHandler(console=err, show_time=False, show_path=False, show_level=False, rich_tracebacks=False)
        )
    log.setLevel(logging.INFO if verbose else logging.WARNING)
    log.propagate = False


if __name__ == "__main__":
    main()
