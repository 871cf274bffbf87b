"""The commands that advise a grid that runs: once from a file, and as a service."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from powergrid.cli.evaluation import load_policies
from powergrid.cli.options import FeederOption, GivenWithPolicies, out, read_run_config, tell, with_options
from powergrid.errors import ScenarioError, describe_unknown

RunArgument = Annotated[str, typer.Argument(metavar="RUN|POLICY", help="A run folder, or a baseline's name.")]
OwnScenario = Annotated[str | None, typer.Argument(metavar="[SCENARIO]", help="Scenario; that of the run if unset.")]
FallbackOption = Annotated[
    str,
    typer.Option(metavar="NAME", help="What stands in for the policy where readings do not do: hold, native, none."),
]
CoverageOption = Annotated[
    float, typer.Option("--min-coverage", min=0.0, max=1.0, help="Least part of an agent's inputs to be measured.")
]
AgeOption = Annotated[
    float | None,
    typer.Option("--max-age", min=0.0, metavar="MIN", help="Minutes that a reading stands in for the next; two steps."),
]
ShadowOption = Annotated[
    Path | None,
    typer.Option(
        "--shadow", metavar="LOG", help="Nobody follows: log advice beside what was done (.csv, .jsonl, .parquet)."
    ),
]
_FORMATS = ("table", "csv", "json")


@dataclass(frozen=True)
class GivenForAdvice(GivenWithPolicies):
    """The same with what options say of the advisor."""

    fallback: FallbackOption = "hold"
    min_coverage: CoverageOption = 0.5
    max_age: AgeOption = None
    feeder: FeederOption = None


@with_options(without=["agents", "add_der", "goal", "view"])
def advise(
    run: RunArgument,
    scenario: OwnScenario = None,
    readings: Annotated[
        Path | None, typer.Option("--readings", metavar="FILE", help="CSV, Parquet, Excel or JSON; a batch a time.")
    ] = None,
    file_format: Annotated[str, typer.Option("--format", metavar="FORMAT", help="table, csv or json.")] = "table",
    out_file: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Write setpoints there: .csv, .parquet or .json.")
    ] = None,
    shadow: ShadowOption = None,
    done: Annotated[
        Path | None, typer.Option("--done", metavar="FILE", help="What was done, by time; what readings say if unset.")
    ] = None,
    example: Annotated[
        Path | None, typer.Option("--example", metavar="FILE", help="Write readings of the model there, and stop.")
    ] = None,
    date: Annotated[str | None, typer.Option(metavar="DATE", help="Day of --example; the first of the test.")] = None,
    spec: Annotated[bool, typer.Option("--spec", help="List all that can be read and is set, and stop.")] = False,
    *,
    given: GivenForAdvice,
) -> None:
    """Advise a grid that runs: readings in, setpoints within every limit out."""
    _check_options(file_format, readings is None and example is None and not spec, done is not None and shadow is None)
    advisor = _build_advisor("powergrid advise", run, scenario, given, follows=shadow is None)
    try:
        if spec:
            _print_spec(advisor)
        elif example is not None:
            _write_example(advisor, run, example, date)
        else:
            assert readings is not None
            _advise_file(advisor, readings, file_format, out_file, shadow, done)
    finally:
        advisor.close()


def _check_options(file_format: str, nothing_asked: bool, done_alone: bool) -> None:
    """Tell all that is wrong with the options at once."""
    problems = [] if file_format in _FORMATS else [describe_unknown("--format", file_format, _FORMATS)]
    if nothing_asked:
        problems.append("give --readings; --example writes some, --spec says what they are called")
    if done_alone:
        problems.append("--done goes with --shadow")
    if problems:
        raise ScenarioError("powergrid advise", problems)


def _build_advisor(command: str, run: str, scenario: str | None, given: GivenForAdvice, *, follows: bool) -> Any:
    """Return the advisor that the options of a command mean."""
    from powergrid.advice import Advisor, AdvisorOptions
    from powergrid.advice.player import find_player
    from powergrid.evaluation.rollout import put_on_feeder
    from powergrid.scenario import scenario_from_config

    options = AdvisorOptions(given.fallback, given.max_age, given.min_coverage, follows)  # type: ignore[arg-type]
    env_config = read_run_config(command, run, scenario, given.env_config(scenario or ""))
    chosen = scenario_from_config(env_config)
    chosen = put_on_feeder(chosen, given.feeder) if given.feeder else chosen
    own, player = find_player(chosen, load_policies([run], chosen, trust=given.trust_checkpoint)[0])
    return Advisor(own, player, options)


def _advise_file(
    advisor: Any, readings: Path, file_format: str, out_file: Path | None, shadow: Path | None, done: Path | None
) -> None:
    from powergrid.advice.files import as_csv, read_batches, write_rows
    from powergrid.advice.shadow import ShadowLog

    log = None if shadow is None else ShadowLog(advisor, shadow)
    deeds = [] if done is None else read_batches(done)
    advice, rows = list[Any](), list[dict[str, Any]]()
    for batch in read_batches(readings):
        each = advisor.advise(batch) if log is None else log.advise(batch)
        advice.append(each)
        rows += each.rows()
        if log is not None:
            _note_done(log, deeds, each.time)
    if out_file is not None:
        kind = out_file.suffix.lower()
        tell(write_rows([each.as_json() for each in advice] if kind == ".json" else rows, out_file))
    elif file_format == "json":
        tell(json.dumps([each.as_json() for each in advice], indent=1))
    elif file_format == "csv":
        tell(as_csv(rows).rstrip("\n"))
    elif log is None and advice:
        _print_advice(advice[-1])
        if len(advice) > 1:
            tell(f"the last of {len(advice)} steps; --out and --format have all of them")
    if log is not None:
        log.finish()
        _print_summary(log)
        tell(shadow)


def _note_done(log: Any, deeds: Sequence[Any], time: Any) -> None:
    """Tell the log what was done in the step that begins at a time."""
    from powergrid.advice.readings import read_time

    for deed in deeds:
        when = read_time(deed.get("time")) if isinstance(deed, dict) else None
        if when is not None and when == time:
            for problem in log.note(deed).problems:
                tell(problem)


def _print_advice(advice: Any) -> None:
    """Print the setpoints of a step, and what has to be known of them."""
    from powergrid.evaluation.report.tables import as_table

    rows = []
    for each in advice.setpoints:
        position = not each.unit
        numbers = (_show(value, position) for value in (each.now, each.asked, each.set))
        what = f"{each.quantity}" if each.pu is None else f"{each.quantity} ({each.pu:g} pu)"
        rows.append((each.device, what, *numbers, each.by, "; ".join(f"{c.code}: {c.text}" for c in each.cuts)))
    title = f"{str(advice.time).replace('T', ' ')}, for {advice.valid_minutes:g} min"
    headings = ("device", "what", "now", "asked", "set", "by", "cut by")
    out.print(as_table(title, headings, rows, texts={"device", "what", "by", "cut by"}))
    for doubt in advice.doubts():
        tell(f"- {doubt}")


def _show(value: float | None, position: bool) -> str:
    return "-" if value is None else f"{value:.0f}" if position else f"{value:.1f}"


def _print_summary(log: Any) -> None:
    """Print what advice and deeds came to."""
    from powergrid.advice.shadow import summarise
    from powergrid.evaluation.report.tables import as_table

    headings = (
        "device", "what", "steps", "same", "advised\nmean", "done\nmean", "apart\nmean", "moves\nadvised",
        "moves\ndone",
    )  # fmt: skip
    rows = []
    for row in summarise(log.read()).to_dict("records"):
        numbers = [row["mean_advised"], row["mean_done"], row["mean_abs_difference"]]
        digits = 4 if row["unit"] == "pu" else 1
        shown = ["-" if n != n else f"{n:.{digits}f}" for n in numbers]
        moves = ["-" if n != n else f"{n:.0f}" for n in (row["moves_advised"], row["moves_done"])]
        same = "-" if row["same_share"] != row["same_share"] else f"{row['same_share']:.0%}"
        rows.append((row["device"], row["quantity"], str(row["compared"]), same, *shown, *moves))
    out.print(as_table("advice against what was done", headings, rows, texts={"device", "what"}))


def _print_spec(advisor: Any) -> None:
    """Print all readings and setpoints with units and ranges."""
    from powergrid.advice.spec import describe

    described = describe(advisor)
    tell("readings: name, unit, possible range, trained range")
    for each in described["readings"]:
        trained = "" if each["trained"] is None else "  trained {:g}..{:g}".format(*each["trained"])
        meaning = f"  ({each['meaning']})" if each["meaning"] else ""
        tell("  {} [{}]  {:g}..{:g}".format(each["name"], each["unit"], *each["possible"]) + trained + meaning)
    tell("setpoints: device, quantity, unit, range")
    for each in described["setpoints"]:
        tell("  {} {} [{}]  {:g}..{:g}".format(each["device"], each["quantity"], each["unit"], *each["range"]))


def _write_example(advisor: Any, run: str, file: Path, date: str | None) -> None:
    """Write readings of a day that the model plays."""
    from powergrid.advice.player import play_readings

    tell(play_readings(advisor, file, date))


@with_options(without=["agents", "add_der", "goal", "view"])
def serve(
    run: RunArgument,
    scenario: OwnScenario = None,
    host: Annotated[str, typer.Option(metavar="ADDRESS", help="Where it listens; loopback if unset.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 8765,
    token_file: Annotated[
        Path | None,
        typer.Option(
            "--token-file", metavar="FILE", help="File of the token; POWERGRID_TOKEN, or a new one, if unset."
        ),
    ] = None,
    shadow: ShadowOption = None,
    *,
    given: GivenForAdvice,
) -> None:
    """Advise a grid that runs, over HTTP: /health, /spec, /advise, /log and /docs."""
    from powergrid.advice.service.app import build_app  # first: where FastAPI is missing, nothing is compiled
    from powergrid.advice.service.listening import find_token, is_loopback, open_server
    from powergrid.advice.shadow import ShadowLog

    token, new = find_token(token_file)
    advisor = _build_advisor("powergrid serve", run, scenario, given, follows=shadow is None)
    try:
        app = build_app(advisor, token, None if shadow is None else ShadowLog(advisor, shadow))
        server, listener, address = open_server(app, host, port)
        with listener:
            tell(f"{address}/docs")
            if new:
                tell(f"token, shown this once: {token}")
            if not is_loopback(host):
                tell("others can reach this address, and HTTP hides nothing: put a proxy with TLS before it")
            server.run(sockets=[listener])
    finally:
        advisor.close()
