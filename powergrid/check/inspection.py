"""One check from its files to its findings, in the process that calls it; a crash of the engine ends it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from powergrid.check.elements import Model, compile_all, survey
from powergrid.check.files import (
    SOURCE,
    Definitions,
    find_misplaced,
    find_problems,
    find_unknown_edits,
    shorten,
)
from powergrid.check.report import FeederReport, Recorder
from powergrid.errors import EngineError, FeederError
from powergrid.grid.engine import Engine
from powergrid.grid.feeder.feeder import scan_feeder


def inspect_feeder(reference: str | Path, recorder: Recorder | None = None, **options: Any) -> FeederReport:
    """Check a feeder in this process.

    Args:
        reference: Name of a shipped feeder or path of a master file.
        recorder: Where findings go as they are found.
        options: As :func:`~powergrid.grid.feeder.feeder.read_feeder` takes them.
    """
    recorder = recorder or Recorder(FeederReport(str(reference)))
    recorder.at("", 0, "reading the files")
    try:
        feeder, problems = scan_feeder(reference, **options)
    except FeederError as error:
        for problem in error.details:
            recorder.find(problem.code, problem.message, error.where)
        return recorder.report
    recorder.state(master=str(feeder.master))
    find_problems(problems, recorder, feeder.master)
    find_misplaced(feeder, recorder)
    definitions = Definitions(feeder.commands)
    find_unknown_edits(feeder, definitions, recorder)
    circuits = [command for name, command in definitions.again if name == SOURCE]
    if SOURCE in definitions.first and not circuits:
        _inspect_circuit(Model(feeder, Engine(), definitions, recorder, broken=bool(problems)))
    for command in circuits:
        first = definitions.first[SOURCE].where
        message = f"{shorten(command.text)!r} begins a second circuit; the first begins at {first}"
        recorder.find("duplicate-name", message, command.file, command.line, remedy="a master file holds one circuit")
    return recorder.report


def _inspect_circuit(model: Model) -> None:
    try:
        compile_all(model)
        model.recorder.at("", 0, "looking at the elements")
        survey(model)
        model.recorder.at("", 0, "solving")
        from powergrid.check.solution import check_solution  # most of the time it takes to start: not before it is due

        check_solution(model)
    except EngineError as error:
        model.find("not-usable", str(error))
    finally:
        model.engine.close()
