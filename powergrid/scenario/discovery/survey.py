"""A feeder's equipment and where its own controls come to rest, read once for all processes of this user."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias

import numpy as np

from powergrid.errors import PowerGridError
from powergrid.grid.circuit.circuit import Circuit
from powergrid.grid.circuit.own.controls import ControlPlan
from powergrid.grid.engine import FloatArray
from powergrid.grid.engine.cache_folder import Arrays, Cache
from powergrid.grid.feeder.compile import known_network
from powergrid.grid.feeder.feeder import Feeder, entry_key
from powergrid.scenario.discovery.equipment import Element, Equipment, read_equipment

#: Solves within which the feeder's own controls come to rest, else a scenario starts as the model stands.
_MOST_SOLVES = 12
#: Positions of switchgear: ``taps`` and ``steps_on``, by name.
Positions = dict[str, dict[str, int]]


class Survey:
    """A feeder's equipment, and a circuit for who has to solve it: compiled once for both, and only where needed.

    Args:
        feeder: The feeder.
    """

    def __init__(self, feeder: Feeder) -> None:
        self.feeder = feeder
        self._circuit: Circuit | None = None

    @property
    def circuit(self) -> Circuit:
        """A circuit on which all of the feeder's own controls act; who solves it leaves it changed."""
        if self._circuit is None:
            self._circuit = Circuit(self.feeder, plan=ControlPlan(others=True))
        return self._circuit

    @functools.cached_property
    def equipment(self) -> Equipment:
        """What there is to control."""
        network = known_network(self.feeder)
        found = None if network is None else _found.recall(self._key())
        if found is None or network is None:
            equipment = read_equipment(self.circuit)
            if self.feeder.digest:
                parts = (equipment.elements, equipment.series_capacitors, equipment.delta_loads, equipment.length_pu)
                _found.keep(self._key(), parts)
            return equipment
        return Equipment(self.feeder.name, network, *found)

    def positions_at(self, kw: FloatArray, kvar: FloatArray) -> Positions:
        """Return where the feeder's own controls come to rest at a demand; nothing where none do.

        Args:
            kw, kvar: What each load draws [kW], [kvar], each shape (n_loads,).
        """
        key = self._key(hashlib.sha256(kw.tobytes() + kvar.tobytes()).hexdigest())
        found = _positions.recall(key) if self.feeder.digest else None
        if found is None:
            found = _come_to_rest(self.circuit, kw, kvar)
            if self.feeder.digest:
                _positions.keep(key, found)
        return found

    def _key(self, *of: str) -> str:
        """Return the key of what is kept of this feeder."""
        return entry_key(_code(), self.feeder.key, *of)

    def close(self) -> None:
        """Free the circuit, if there is one."""
        if self._circuit is not None:
            self._circuit.close()
            self._circuit = None


def equipment_of(feeder: Feeder) -> Equipment:
    """Return what a feeder has to control."""
    with contextlib.closing(Survey(feeder)) as survey:
        return survey.equipment


def _come_to_rest(circuit: Circuit, kw: FloatArray, kvar: FloatArray) -> Positions:
    try:
        circuit.write_demand(kw, kvar)
        for _ in range(_MOST_SOLVES):
            if not circuit.solve(controls=True):
                return {}
            if not circuit.own_moves:
                break
        circuit.start_from({}, {})  # so that what was found also solves with the controls held
    except PowerGridError:  # it does not solve with them: the scenario starts as the model stands
        return {}
    return {
        "taps": dict(zip(circuit.network.regulator_controls, circuit.taps.tolist(), strict=True)),
        "steps_on": dict(zip(circuit.network.capacitors, circuit.steps_on.tolist(), strict=True)),
    }


@functools.cache
def _code() -> str:
    """Return what changes with the code of this room: what other code made is not found."""
    files = sorted(Path(__file__).parent.glob("*.py"))
    return hashlib.sha256(b"\0".join(file.read_bytes() for file in files)).hexdigest()


def _encode(found: _Found) -> tuple[str, Arrays]:
    elements, series, delta, length_pu = found
    rows = {kind: [(e.name, e.bus, e.phases, dict(e.ratings), e.note) for e in own] for kind, own in elements.items()}
    return json.dumps([rows, series]), {"delta": np.array(delta, dtype=np.bool_), "length_pu": length_pu}


def _decode(text: str, arrays: Arrays) -> _Found:
    rows, series = json.loads(text)
    elements = {
        kind: tuple(Element(name, bus, tuple(phases), ratings, note) for name, bus, phases, ratings, note in own)
        for kind, own in rows.items()
    }
    return elements, tuple(series), tuple(arrays["delta"].tolist()), arrays["length_pu"]


_Found: TypeAlias = tuple[Mapping[str, tuple[Element, ...]], tuple[str, ...], tuple[bool, ...], FloatArray]
#: What was read of feeders, without their networks, which are kept already.
_found = Cache("equipment", _encode, _decode)
#: Where the controls of feeders come to rest.
_positions: Cache[Positions] = Cache(
    "positions", lambda found: (json.dumps(found), {}), lambda text, _: dict(json.loads(text))
)
