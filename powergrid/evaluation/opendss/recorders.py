"""The monitors and energy meters of a feeder's model: commands beside a day, and what they record as tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from powergrid.errors import EngineError
from powergrid.evaluation.opendss import script
from powergrid.evaluation.opendss.engine_play import EnginePlay
from powergrid.evaluation.opendss.played import PlayedDay
from powergrid.evaluation.replay.tables import TableFormat
from powergrid.files import telling
from powergrid.grid.engine import Engine
from powergrid.grid.feeder.feeder import Feeder
from powergrid.grid.feeder.preparation import about_recorders
from powergrid.grid.feeder.reading.syntax import Command

_CONTINUES = ("more", "m", "~")


def find_recorders(feeder: Feeder, day: PlayedDay, notes: list[str]) -> list[str]:
    """Return the commands that define the model's monitors and meters, those that OpenDSS refuses left out.

    Args:
        feeder: The feeder.
        day: The day as played, whose feeder they stand in.
        notes: Is told what was left out.
    """
    # Those that loads are allocated by count as part of the circuit elsewhere.
    commands = [command for command in feeder.commands if command.verb != "allocateloads"]
    about = about_recorders(commands)
    left_out = _join([command for command, own in zip(commands, about, strict=True) if own])
    asked = [lines for lines in left_out if "espvlcontrol." not in lines[0].lower()]  # which records nothing
    if not asked:
        why = "it is composed, and those of its parts are left out" if feeder.circuit else "its model defines none"
        notes.append(f"Nothing is recorded by monitors or meters of {feeder.name}: {why}.")
        return []
    kept, engine = list[str](), Engine()
    try:
        for line in script.write_feeder(day).splitlines():
            if line.strip() and not line.startswith("!"):
                engine.command(line)
        for lines in asked:
            try:
                for line in lines:
                    engine.command(line)
                engine.solve()
                kept += lines
            except EngineError as error:
                kept += [f"! left out: {line}" for line in lines]
                notes.append(f"Left out, as OpenDSS refuses it: {lines[0].strip()} ({error.brief})")
    finally:
        engine.close()
    return ["! Monitors and meters of the model.", *kept]


def _join(commands: Sequence[Command]) -> Iterator[list[str]]:
    """Yield commands with those that continue them."""
    lines: list[str] = []
    for command in commands:
        if command.verb in _CONTINUES and lines:
            lines.append(command.text)
            continue
        if lines:
            yield lines
        lines = [command.text]
    if lines:
        yield lines


def write_tables(played: EnginePlay, folder: Path, table_format: TableFormat) -> list[Path]:
    """Write what monitors and meters recorded, a file each; registers of a meter step by step.

    Raises:
        PowerGridError: the folder cannot be written to.
    """
    files = []
    with telling(folder):
        for name, table in played.tables.items():
            kind, _, own = name.partition(":")
            file = folder / f"{kind}_{''.join(c if c.isalnum() or c in '-_.' else '_' for c in own)}.{table_format}"
            table.to_csv(file, index=False) if table_format == "csv" else table.to_parquet(file, index=False)
            files.append(file)
    return files
