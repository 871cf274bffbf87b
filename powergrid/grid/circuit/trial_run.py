"""What a trial runs in its own process: a foreign feeder becomes a circuit, as it would where it is played."""

from __future__ import annotations

import contextlib
import io
import json

from powergrid.errors import FeederError, PowerGridError, Problem
from powergrid.grid.circuit.circuit import Circuit
from powergrid.grid.engine import Engine
from powergrid.grid.engine.cache_folder import write_packed
from powergrid.grid.engine.confinement import find_denied
from powergrid.grid.engine.own_process import receive, shut_in
from powergrid.grid.feeder.compile import encode_network
from powergrid.grid.feeder.feeder import Feeder
from powergrid.grid.feeder.trial import PROGRESS_BYTES, decode_feeder, watch


def main(folder: str) -> None:
    """Compile and solve the feeder that the folder's request holds, and write what came of it, its network too."""
    request, answer = receive(folder)
    feeder, timeout_s = decode_feeder(request["feeder"]), float(request["timeout_s"])
    Engine().close()  # what the engine reads when it starts, it reads before
    out = answer.open("wb", buffering=0)  # what is written is there when the engine ends the process

    n_begun = 0

    def report(number: int) -> None:
        nonlocal n_begun
        n_begun = number
        out.seek(0)
        out.write(b"%*d" % (PROGRESS_BYTES, n_begun))

    # What it names and no more: each file was found and judged by who read the feeder.
    confinement = shut_in(folder, feeder.files, timeout_s)
    report(0)
    watch(report)
    where, problems, described = "", list[Problem](), io.BytesIO()
    try:
        circuit = Circuit(feeder)
        write_packed(described, *encode_network(circuit.network))
        circuit.solve()
        circuit.close()
    except FeederError as error:
        where, problems = error.where, list(error.details)
    except PowerGridError as error:
        where, problems = str(feeder.master), [Problem("not-usable", "", str(error))]
    if (denied := _find_denied(feeder)) is not None:
        where, problems = denied
    # One that compiles and does not solve did no harm: who compiles it next may ask for no more, or says so himself.
    elif n_begun > len(feeder.commands):
        problems.clear()
    said = {"confinement": str(confinement), "where": where, "problems": [_plain(each) for each in problems]}
    out.seek(PROGRESS_BYTES)
    out.write(json.dumps(said).encode("ascii") + b"\n")
    with contextlib.suppress(OSError):  # too large a file: then who plays it has to describe it
        out.write(described.getbuffer())


def _find_denied(feeder: Feeder) -> tuple[str, list[Problem]] | None:
    """Return the first command of whose files one could not be opened: to OpenDSS it is missing or empty."""
    for command in feeder.commands:
        if "/" in command.text and (denied := find_denied(command.text)):
            text = f"{command.text.strip()!r}: {', '.join(denied)} is there, and its trial was not let open it"
            return command.where, [Problem("refused", "", text, "a feeder's files are those that its lines name")]
    return None


def _plain(problem: Problem) -> tuple[str, str, str, str]:
    return problem.code, problem.where, problem.text, problem.remedy
