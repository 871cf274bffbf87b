"""Series impedances of lines as compiled, and the edits that multiply them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from powergrid.grid.engine import Engine, FloatArray, Handle
from powergrid.grid.feeder.changes import as_matrix

_MATRICES = ("RMatrix", "XMatrix", "CMatrix")
#: Resistance, reactance and capacitance matrix of each line that is no switch, by its name, and the unit of its length.
LineMatrices = dict[str, tuple[list[FloatArray], str]]


def read_lines(engine: Engine, lines: Mapping[str, Handle]) -> LineMatrices:
    """Read the matrices of all lines that are no switch."""
    return {
        name: ([engine.get_floats(line, "Line", key) for key in _MATRICES], engine.get_text(line, "Line", "Units"))
        for name, line in lines.items()
        if not engine.get_int(line, "Line", "Switch")
    }


def write_lines(lines: LineMatrices, r: float, x: float) -> Iterator[tuple[str, str]]:
    """Yield the name of each line, and the properties that multiply its resistance and its reactance."""
    for name, (matrices, units) in lines.items():
        given = zip(_MATRICES, (r, x, 1.0), matrices, strict=True)
        # what is not written anew a line may lose that is of a code or geometry; units last, else they are lost
        yield name, " ".join([*(f"{key}=[{as_matrix(factor * own)}]" for key, factor, own in given), f"units={units}"])
