"""The command that replays a day: several policies on it, step by step, as tables and as a page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import BaseModel

from powergrid.cli.evaluation import load_policies
from powergrid.cli.options import (
    DateOption,
    DayOption,
    DaySeedOption,
    FeederOption,
    FilesOption,
    GivenWithPolicies,
    PlayedArgument,
    PlayersArgument,
    counting,
    out,
    read_played,
    tell,
    with_options,
)
from powergrid.errors import PowerGridError, ScenarioError, describe_unknown

_FORMATS = ("parquet", "csv")


@with_options()
def replay(
    policies: PlayersArgument = None,
    *,
    scenario: PlayedArgument,
    date: DateOption = None,
    day: DayOption = None,
    worst: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Play the N worst days of the split, as the first policy plays them."),
    ] = None,
    by: Annotated[
        str, typer.Option(metavar="WHAT", help="Worst by violations, losses, peak, cost or moves.")
    ] = "violations",
    split: Annotated[str, typer.Option(help="Where to look for the worst: train, validation, test or all.")] = "test",
    seed: DaySeedOption = 0,
    out_dir: FilesOption = Path("replay"),
    file_format: Annotated[
        str, typer.Option("--format", metavar="FORMAT", help="Format of the tables: parquet or csv.")
    ] = "parquet",
    png: Annotated[bool, typer.Option("--png", help="Draw each step as a picture too.")] = False,
    film: Annotated[str | None, typer.Option(metavar="KIND", help="Draw a film too: gif, or mp4 by ffmpeg.")] = None,
    feeder: FeederOption = None,
    given: GivenWithPolicies,
) -> None:
    """Play one day of SCENARIO with several policies, keep it step by step and show it on one page."""
    from powergrid.evaluation.replay import record_day
    from powergrid.evaluation.replay.frames import check_film
    from powergrid.evaluation.replay.page import write_page
    from powergrid.evaluation.replay.tables import write_recording
    from powergrid.evaluation.rollout import put_on_feeder
    from powergrid.scenario import scenario_from_config

    problems = [] if file_format in _FORMATS else [describe_unknown("--format", file_format, _FORMATS)]
    if sum(each is not None for each in (date, day, worst)) != 1:
        problems.append("say which day: one of --date, --day and --worst")
    if problems:
        raise ScenarioError("powergrid replay", problems)
    if film is not None:
        check_film(film)
    policies, env_config = read_played("powergrid replay", policies, scenario, given)
    chosen = scenario_from_config(env_config)
    chosen = put_on_feeder(chosen, feeder) if feeder else chosen
    players = load_policies(policies, chosen, given.view, given.trust_checkpoint)
    days = _choose_days(chosen, players, date, day, worst, by, split, seed)
    for each in days:
        notes = {
            player[0]: note for path, player in zip(policies, players, strict=True) if (note := _say_trained(
                path, player, chosen.read_profiles(), each))
        }  # fmt: skip
        recordings = record_day(chosen, players, each, seed=seed, notes=notes)
        _print_day(recordings)
        names = [f"{each.date}_{each.policy.strip('/').replace('/', '_')}.{file_format}" for each in recordings]
        for recording, name in zip(recordings, names, strict=True):
            tell(write_recording(recording, out_dir / name))
        tell(write_page(recordings, out_dir / f"{recordings[0].date}.html", names))
        _draw_frames(recordings, out_dir, png, film)


def _draw_frames(recordings: Sequence[Any], folder: Path, png: bool, film: str | None) -> None:
    """Draw the pictures and the film that are asked for, with a bar on a terminal."""
    from powergrid.evaluation.replay.frames import write_frames

    if not png and film is None:
        return
    date = recordings[0].date
    with counting("drawing") as advance:
        files = write_frames(
            recordings,
            pictures=folder / f"{date}_png" if png else None,
            film=None if film is None else folder / f"{date}.{film}",
            progress=advance,
        )
    tell(folder / f"{date}_png" if png else files[-1])
    if png and film is not None:
        tell(files[-1])


def _choose_days(
    scenario: Any, players: Sequence[Any], date: str | None, day: int | None, worst: int | None, by: str, split: str,
    seed: int,
) -> list[int]:  # fmt: skip
    """Return the days to play, with a bar on a terminal while the worst are looked for."""
    from powergrid.evaluation.replay import find_worst_days, pick_day

    if worst is None:
        asked = day if date is None else date
        assert asked is not None
        return [pick_day(scenario.read_profiles(), asked)]
    with counting(f"playing the {split} split") as advance:
        return find_worst_days(scenario, players[0], worst, by, split=split, seed=seed, progress=advance)


def _say_trained(path: str, player: Any, profiles: Any, day: int) -> list[str]:
    """Say whether a run was trained or chosen on a day; nothing of a baseline, or where it was on other days."""
    return _say_each(path, player, profiles, [day])[0]


def say_seen(paths: Sequence[str], players: Sequence[Any], profiles: Any, days: Sequence[int]) -> dict[str, str]:
    """Say of each run on how many of some days it was trained or chosen, and how, by the name it plays under."""
    notes = {}
    for path, player in zip(paths, players, strict=True):
        told = [note[0] for note in _say_each(path, player, profiles, days) if note]
        if told:
            notes[player[0]] = f"{len(told)} of these {len(days)} days may not be new to it. Of the first: {told[0]}"
    return notes


class _Manifest(BaseModel):
    digests: dict[str, Any] = {}
    env_config: dict[str, Any] = {}


def _say_each(path: str, player: Any, profiles: Any, days: Sequence[int]) -> list[list[str]]:
    """Say of each of some days what :func:`_say_trained` says."""
    from powergrid.evaluation.replay.recording import find_split
    from powergrid.files import read_json

    if isinstance(player, str):
        return [[]] * len(days)
    from powergrid.training.policies.inference import MANIFEST  # that of records would load Ray and torch

    folder = Path(path).expanduser().resolve()
    run = next((each for each in (folder, *folder.parents[:4]) if (each / MANIFEST).is_file()), None)
    if run is None:
        return [["Where this policy was trained is not known, so it may have met this day."]] * len(days)
    try:
        manifest = read_json(run / MANIFEST, _Manifest)
    except PowerGridError:
        return [["The manifest of this policy's run cannot be read, so it may have met this day."]] * len(days)
    if manifest.digests.get("profiles") != profiles.digest():
        return [["This policy was trained on other profiles."]] * len(days)
    trained = str(manifest.env_config.get("split", "train"))
    return [_say_split(trained, find_split(profiles, day)) for day in days]


def _say_split(trained: str, own: str) -> list[str]:
    if trained in ("all", own):
        return [f"This policy was trained on this day: it is of the split {own!r} that training drew from."]
    if own == "validation":
        return ["This policy was chosen by its days of validation, of which this may be one."]
    return []


def _print_day(recordings: Sequence[Any]) -> None:
    """Print what the day came to, a row for each policy, and what is to be known of it."""
    from powergrid.evaluation.report.tables import as_table

    first = recordings[0]
    title = f"{first.scenario} on {first.date}, a day of the {first.split} split"
    rows = []
    for recording in recordings:
        row = recording.totals()
        numbers = (format(row[column], form) for column, form in _SHOWN.items())
        rows.append((recording.policy + ("" if recording.finished else " (diverged)"), *numbers))
    out.print(as_table(title, _HEADINGS, rows))
    for recording in recordings:
        for note in recording.notes:
            tell(f"{recording.policy}: {note}")


#: Columns of a day's row that are shown, and how.
_SHOWN = {
    "violation_node_hours": ".1f", "v_min_pu": ".3f", "v_max_pu": ".3f", "overload_branch_hours": ".1f",
    "losses_kwh": ".0f", "import_peak_kw": ".0f", "operations": ".0f", "cost_usd": ".0f",
}  # fmt: skip
_HEADINGS = (
    "policy", "outside\nnode-h", "lowest\npu", "highest\npu", "overload\nbranch-h", "losses\nkWh", "peak\nkW", "moves",
    "cost\nUSD",
)  # fmt: skip
