"""What the commands share: their consoles, common options and how options become keys of a scenario."""

from __future__ import annotations

import functools
import inspect
import logging
import os
import shlex
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer
import yaml
from rich.console import Console

from powergrid.errors import PowerGridError, ScenarioError

# What a command finds goes to out and can be piped; warnings, errors and bars go to err.
out = Console(emoji=False)  # policy.py:x: is a place
err = Console(emoji=False, stderr=True)


def check_folder(folder: Path | None) -> Path | None:
    """Return a folder to write in, before hours go into what would be written there.

    Raises:
        PowerGridError: It, or what it would be made in, is a file or closed to this user.
    """
    from powergrid.files import path_of  # loads numpy, for which --help and --version do not wait

    if folder is not None:
        whole = path_of(folder).absolute()
        place = next(each for each in (whole, *whole.parents) if each.exists() or each == each.parent)
        if not place.is_dir():
            raise PowerGridError(f"{folder}: cannot be written: {place} is a file, and a folder is meant")
        if not os.access(place, os.W_OK | os.X_OK):
            raise PowerGridError(f"{folder}: cannot be written: {place} is closed to you")
    return folder


ScenarioArgument = Annotated[str, typer.Argument(help="Scenario or feeder, by name or file.")]
PlayersArgument = Annotated[
    list[str] | None, typer.Argument(metavar="RUN|POLICY...", help="Run folders and names of baselines, one or more.")
]
PlayedArgument = Annotated[
    str, typer.Argument(help="Scenario or feeder, by name or file; or a run, for its own, on which it plays if alone.")
]
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
GoalOption = Annotated[
    str | None,
    typer.Option("--goal", metavar="NAME", help="Aim at voltage, taps, losses, peak, cost or balanced."),
]
TrustOption = Annotated[bool, typer.Option("--trust", help="Let the feeder do more than describe a circuit.")]
PoliciesOption = Annotated[
    str, typer.Option(help="shared: one policy for equal agents; independent: one for each agent.")
]
SettingsOption = Annotated[
    list[str] | None,
    typer.Option("--setting", metavar="NAME=VALUE", help="A training setting, for example lr=1e-4; repeatable."),
]
SplitOption = Annotated[str, typer.Option(help="Split of the profiles: train, validation or test.")]
VerboseOption = Annotated[bool, typer.Option("--verbose", "--debug", help="Show tracebacks and all library output.")]
ViewOption = Annotated[
    str, typer.Option(help="What functions and classes of your own see: agents, or central for one vector of all.")
]
TrustFilesOption = Annotated[
    bool,
    typer.Option("--trust-checkpoint", help="Load files of Stable-Baselines3 or TorchRL: runs the code in them."),
]
DateOption = Annotated[str | None, typer.Option(metavar="DATE", help="The day, as 2018-07-14.")]
DayOption = Annotated[int | None, typer.Option(min=0, help="The same by its number from the first of the profiles.")]
DaySeedOption = Annotated[int, typer.Option(min=0, help="Seed of what is random in a day.")]
DaysOption = Annotated[int, typer.Option(min=1, help="Days to play, spread evenly over the split.")]
ProcessesOption = Annotated[int | None, typer.Option(min=1, help="Processes that play; one a core if unset.")]
FeederOption = Annotated[
    str | None, typer.Option(metavar="FEEDER", help="On this feeder instead, by name or master file.")
]
AgainstOption = Annotated[
    list[str] | None,
    typer.Option("--against", metavar="NAME", help="Compare with this baseline; native, rules and none if unset."),
]
FilesOption = Annotated[Path, typer.Option("--out", metavar="DIR", help="Where the files go.", callback=check_folder)]
GoingOnOption = Annotated[
    Path, typer.Option("--out", metavar="DIR", help="Where it is kept, and gone on with.", callback=check_folder)
]
TablesOption = Annotated[
    Path | None, typer.Option("--out", metavar="DIR", help="Write CSV and JSON tables there.", callback=check_folder)
]


@dataclass(frozen=True)
class Given:
    """What options say of the scenario that a command takes; :func:`with_options` fills it in."""

    agents: AgentsOption = None
    add_der: AddDerOption = None
    goal: GoalOption = None
    trust: TrustOption = False
    overrides: SetOption = None
    verbose: VerboseOption = False

    def env_config(self, scenario: str, overrides: Sequence[str] | None = None) -> dict[str, Any]:
        """Return the env_config of a scenario with them; ``overrides`` of a command that lists --set elsewhere."""
        keys = parse_overrides(overrides or self.overrides or [])
        # --set agents.<key> and --agents, or --set add_der.<key> and --add-der, and so on, are parts of one section.
        if self.agents is not None:
            given = keys.get("agents")
            keys["agents"] = {**given, "layout": self.agents} if isinstance(given, dict) else self.agents
        for section, key, value in (("add_der", "penetration", self.add_der), ("reward", "goal", self.goal)):
            if value is not None:
                given = keys.get(section)
                keys[section] = {**(given if isinstance(given, dict) else {}), key: value}
        return {"env_name": scenario, **keys, **({"trust": True} if self.trust else {})}


@dataclass(frozen=True)
class GivenWithPolicies(Given):
    """The same with what options say of how policies are loaded."""

    view: ViewOption = "agents"
    trust_checkpoint: TrustFilesOption = False


def with_options(*, without: Collection[str] = ()) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return what gives a command, in place of its parameter ``given``, the options of that one's class.

    --verbose comes last, and is heeded. The command states only what is its own; typer reads the whole of it.

    Args:
        without: Options that it has not, or lists elsewhere itself.
    """
    keyword = inspect.Parameter.KEYWORD_ONLY

    def extend(command: Callable[..., None]) -> Callable[..., None]:
        own = [each.replace(kind=keyword) for each in inspect.signature(command, eval_str=True).parameters.values()]
        place = [each.name for each in own].index("given")
        kind: type[Given] = own[place].annotation
        hints = get_type_hints(kind, include_extras=True)
        shared = [
            inspect.Parameter(each.name, keyword, default=each.default, annotation=hints[each.name])
            for each in sorted(fields(kind), key=lambda each: each.name == "verbose")
            if each.name not in without
        ]
        parameters = [*own[:place], *shared[:-1], *own[place + 1 :], shared[-1]]

        @functools.wraps(command)
        def run(**values: Any) -> None:
            given = kind(**{each.name: values.pop(each.name) for each in shared})
            log_to_console(given.verbose)
            command(given=given, **values)

        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # where inspect looks for it
        run.__annotations__ = {each.name: each.annotation for each in parameters}
        return run

    return extend


def tell(text: object) -> None:
    """Print a line as it is."""
    # Names of files may look like markup, and a path broken at the terminal's width cannot be copied.
    out.print(str(text), highlight=False, soft_wrap=True, markup=False)


def tell_verdicts(verdicts: Mapping[str, Sequence[object]]) -> None:
    """Print the sentences of all verdicts."""
    for sentences in verdicts.values():
        for sentence in sentences:
            out.print(str(sentence), highlight=False, markup=False)


def this_command() -> str:
    """Return the command that runs, for the report that it writes."""
    return shlex.join(["powergrid", *sys.argv[1:]])


@contextmanager
def counting(what: str) -> Iterator[Callable[[int, int], None]]:
    """Yield what takes how many are done and how many there are, and shows them as a bar on a terminal meanwhile."""
    from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as bar:
        task = bar.add_task(what, total=None)

        def advance(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        yield advance


def read_run_config(command: str, run: str, scenario: str | None, given: dict[str, Any]) -> dict[str, Any]:
    """Return the env_config of a scenario, that of the run where none is named."""
    if scenario is not None:
        return given
    from powergrid.adapters import is_policy_file
    from powergrid.evaluation import BASELINES

    if run in BASELINES or is_policy_file(run):
        kind = "a baseline" if run in BASELINES else "a file of another library"
        raise ScenarioError(command, [f"{run} is {kind}, of no scenario: name one after it"])
    from powergrid.scenario.claims import settle_claims
    from powergrid.training.runs.records import MANIFEST, read_manifest  # only now: it takes Ray

    own = settle_claims(Path(run) / MANIFEST, read_manifest(Path(run))["env_config"])
    return {**own, **{key: value for key, value in given.items() if key != "env_name"}}


def read_played(
    command: str, policies: Sequence[str] | None, scenario: str, given: Given
) -> tuple[list[str], dict[str, Any]]:
    """Return who plays and the env_config: where a run stands for the scenario, its own; alone, it plays on it too."""
    from powergrid.files import path_of
    from powergrid.training.policies.inference import MANIFEST  # that of records would load Ray and torch

    place = path_of(scenario)
    if not (place / MANIFEST).is_file():
        if not policies and (place.is_dir() or (place.parent != Path() and not place.exists())):
            from powergrid.training.runs.records import read_manifest

            read_manifest(place)  # which says that it is no run
        if not policies:
            raise ScenarioError(command, [f"who plays on {scenario}? name runs or baselines before it, as native"])
        return list(policies), given.env_config(scenario)
    return list(policies or [scenario]), read_run_config(command, scenario, None, given.env_config(scenario))


def parse_overrides(items: Sequence[str], option: str = "--set") -> dict[str, Any]:
    """Turn ``a.b=value`` items into nested keys; values are read as YAML.

    Raises:
        ScenarioError: An item has no ``=``, a value is no YAML, or two items contradict.
    """
    nested: dict[str, Any] = {}
    # All at once, as the library reports a scenario's.
    problems: list[str] = []
    for item in items:
        path, sign, text = item.partition("=")
        keys = path.split(".")
        if not sign or not all(keys):
            problems.append(f"{item!r} is not KEY=VALUE, for example reward.scale=0.001")
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
    """Read a YAML value; ``1e-4`` is a number."""
    value = yaml.safe_load(text)
    # YAML 1.1 wants a point and a sign in 1.0e-4, and takes what people write for a text.
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def log_to_console(verbose: bool) -> None:
    """Show what the library warns of, as plain lines on stderr."""
    from rich.logging import RichHandler

    log = logging.getLogger("powergrid")
    # Once a process: tests and notebooks call main() again.
    if not any(isinstance(handler, RichHandler) for handler in log.handlers):
        log.addHandler(
            RichHandler(console=err, show_time=False, show_path=False, show_level=False, rich_tracebacks=False)
        )
    log.setLevel(logging.INFO if verbose else logging.WARNING)
    # Handlers of the root logger, where anything set some up, would print each line again.
    log.propagate = False
