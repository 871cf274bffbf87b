"""The command that writes policies for use elsewhere: as networks, or as what they do in plain OpenDSS."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, get_args

import typer

from powergrid.cli.options import (
    DateOption,
    DayOption,
    DaySeedOption,
    Given,
    SetOption,
    counting,
    out,
    read_run_config,
    tell,
    with_options,
)
from powergrid.errors import PowerGridError, ScenarioError, describe_unknown

_DAY_OPTIONS = "--date, --day, --verify, --monitors and --fit go with --opendss"


@with_options(without=["overrides"])
def export(
    run: Annotated[
        str,
        typer.Argument(metavar="RUN|POLICY", help="Run folder or checkpoint; with --opendss a baseline's name too."),
    ],
    scenario: Annotated[
        str | None,
        typer.Argument(help="With --opendss: scenario or feeder, by name or file; that of the run if none is given."),
    ] = None,
    format: Annotated[
        str | None,
        typer.Option(help="onnx (default) or torchscript; of --monitors csv (default) or parquet."),
    ] = None,
    opendss: Annotated[
        bool, typer.Option("--opendss", help="Write what it does on a day as scripts that OpenDSS plays alone.")
    ] = False,
    date: DateOption = None,
    day: DayOption = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Let OpenDSS play the scripts and tell the largest difference in voltage.")
    ] = False,
    monitors: Annotated[
        bool, typer.Option("--monitors", help="Write what the feeder's own monitors and meters record on the day.")
    ] = False,
    fit: Annotated[
        bool, typer.Option("--fit", help="Fit settings of OpenDSS's own controls, and tell what is lost with them.")
    ] = False,
    days: Annotated[int, typer.Option(min=1, help="Days fitted, and days told; with --fit.")] = 7,
    seed: DaySeedOption = 0,
    out_dir: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Where the files go; RUN/export, or opendss, by default."),
    ] = None,
    *,
    given: Given,
    overrides: SetOption = None,
    trust_checkpoint: Annotated[
        bool,
        typer.Option(
            "--trust-checkpoint",
            help="Import the environment of a run made elsewhere; run the code in a policy's file.",
        ),
    ] = False,
) -> None:
    """Write the policy of RUN for use without PowerGrid, or what it does on a day as plain OpenDSS.

    Without --opendss: a file an agent, and a JSON of all inputs and outputs.
    """
    if not opendss:
        changed = replace(given, verbose=False) != Given() or overrides
        if changed or verify or monitors or fit or any(each is not None for each in (scenario, date, day)):
            raise typer.BadParameter(f"SCENARIO and what changes it, {_DAY_OPTIONS}")
        _write_networks(run, out_dir, format or "onnx", trust_checkpoint)
        return
    from powergrid.evaluation.opendss import export_day
    from powergrid.evaluation.replay.tables import TableFormat

    problems = [] if date is None or day is None else ["say either --date or --day"]
    if format not in (None, *get_args(TableFormat)):
        problems.append(describe_unknown("--format of tables", format, get_args(TableFormat)))
    if problems:
        raise ScenarioError("powergrid export", problems)
    env_config = read_run_config("powergrid export", run, scenario, given.env_config(scenario or "", overrides))
    policy, folder = _load(run, env_config, trust_checkpoint), out_dir or Path("opendss")
    result = export_day(
        env_config, policy, date if day is None else day, folder, seed=seed, verify=verify,
        monitors=monitors, table_format=format or "csv",  # type: ignore[arg-type]
    )  # fmt: skip
    for line in result.lines():
        tell(line)
    if fit:
        _fit(env_config, policy, result.day, folder / "fitted", days, seed)


def _write_networks(run: str, out_dir: Path | None, format: Any, trust: bool) -> None:
    from powergrid.adapters import is_policy_file
    from powergrid.training import export_run

    if is_policy_file(run):
        made = "of Stable-Baselines3 or TorchRL, whose own tools write it as a network"
        raise PowerGridError(f"{run}: is a file {made}; with --opendss what it does on a day can be written")
    folder = Path(run)
    for file in export_run(folder, out_dir or folder / "export", format=format, trust=trust):
        tell(file)


def _fit(env_config: dict[str, Any], policy: Any, day: Any, folder: Path, days: int, seed: int) -> None:
    """Fit settings, with a bar on a terminal while it lasts, and print what is lost with them."""
    from powergrid.evaluation.opendss import export_settings

    with counting("playing days") as advance:
        found, files = export_settings(env_config, policy, day, folder, days, seed=seed, progress=advance)
    for file in files:
        tell(file)
    for each in found.settings.fits.values():
        tell(f"{each.device}: {each.control}; {each.how}")
    for name, why in found.settings.left.items():
        tell(f"{name}: {why}")
    out.print(found.table())
    tell(found.sentence())


def _load(run: str, env_config: dict[str, Any], trust: bool) -> Any:
    from powergrid.cli.evaluation import load_policies
    from powergrid.scenario import scenario_from_config

    return load_policies([run], scenario_from_config(env_config), trust=trust)[0]
