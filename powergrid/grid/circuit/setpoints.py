"""Bulk writes of what loads ask for and what devices are set to, into one compiled circuit.

Knows neither time nor physics: values come in physical units and go out in those of the engine's properties.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from powergrid.grid.circuit.injections import INJECTION_PROPERTIES, Injection
from powergrid.grid.engine import BulkWriter, Engine, FloatArray, Handle, IntArray


class Group(NamedTuple):
    """The devices of one element class: their places in the device arrays, and what writes them."""

    devices: IntArray
    scale: FloatArray
    p_writer: BulkWriter
    q_writer: BulkWriter


class Setpoints:
    """Write demand and setpoints of one circuit.

    Args:
        engine: The engine that holds the circuit.
        loads: Handle of each load by name, in the order of the load table.
        injections: Where each device's power goes.
        targets: Class and element that carries each device's power.

    Attributes:
        load_of_device: Place of the load that each device replaces, -1 where it replaces none, shape (n_devices,).
        load_writers: What writes active and reactive demand; none where there are no loads.
        groups: The devices that are no loads, by element class.
    """

    def __init__(
        self,
        engine: Engine,
        loads: Mapping[str, Handle],
        injections: Sequence[Injection],
        targets: Sequence[tuple[str, Handle]],
    ) -> None:
        self._engine = engine
        self._writers: list[tuple[BulkWriter, FloatArray]] = []
        of_loads = list(loads.values())
        self.load_writers = [self._bind("Load", name, of_loads) for name in ("kW", "kvar")] if of_loads else []
        position = {name: i for i, name in enumerate(loads)}
        self.load_of_device = np.full(len(targets), -1)
        groups: dict[str, list[int]] = {}
        for device, ((class_name, _), injection) in enumerate(zip(targets, injections, strict=True)):
            if class_name == "Load":
                self.load_of_device[device] = position[injection.element.partition(".")[2].lower()]
            else:
                groups.setdefault(class_name, []).append(device)
        self.groups = [self._bind_group(class_name, devices, targets) for class_name, devices in groups.items()]

    def _bind(self, class_name: str, name: str, handles: Sequence[Handle]) -> BulkWriter:
        """Prepare a bulk write that starts from what the elements say."""
        writer = self._engine.bulk_writer(class_name, name, handles)
        writer.values[:] = [self._engine.get_float(handle, class_name, name) for handle in handles]
        self._writers.append((writer, writer.values.copy()))
        return writer

    def _bind_group(self, class_name: str, devices: list[int], targets: Sequence[tuple[str, Handle]]) -> Group:
        handles = [targets[device][1] for device in devices]
        p_name, q_name = INJECTION_PROPERTIES[class_name]
        scale = np.ones(len(devices))
        if class_name == "PVSystem":
            scale = np.array([1.0 / self._engine.get_float(handle, class_name, "Pmpp") for handle in handles])
        p_writer, q_writer = (self._bind(class_name, name, handles) for name in (p_name, q_name))
        return Group(np.array(devices), scale, p_writer, q_writer)

    def write_demand(self, kw: FloatArray, kvar: FloatArray) -> None:
        """Write what every load asks for [kW], [kvar], each shape (n_loads,)."""
        for writer, values in zip(self.load_writers, (kw, kvar), strict=False):
            writer.values[:] = values
            writer.write()

    def write_injections(self, p_kw: FloatArray, q_kvar: FloatArray) -> None:
        """Write the devices' setpoints, positive into the grid [kW], [kvar], each shape (n_devices,)."""
        for group in self.groups:
            np.multiply(p_kw[group.devices], group.scale, out=group.p_writer.values)
            group.q_writer.values[:] = q_kvar[group.devices]
            group.p_writer.write()
            group.q_writer.write()

    def swap_in_start(self) -> list[FloatArray]:
        """Write what the elements said as compiled; give what was written before, for :meth:`put_back`."""
        kept = [writer.values.copy() for writer, _ in self._writers]
        self.put_back([start for _, start in self._writers])
        return kept

    def put_back(self, kept: Sequence[FloatArray]) -> None:
        """Write what :meth:`swap_in_start` gave."""
        for (writer, _), values in zip(self._writers, kept, strict=True):
            writer.values[:] = values
            writer.write()

    @property
    def writers(self) -> list[BulkWriter]:
        """Everything that writes, in the order in which it does."""
        return [writer for writer, _ in self._writers]


class SetpointTable:
    """The setpoints of n circuits of one feeder side by side: filled in one pass, written circuit by circuit.

    Args:
        parts: The setpoints of each circuit; they write from the table's rows from here on.
    """

    def __init__(self, parts: Sequence[Setpoints]) -> None:
        demand = [_stack([part.load_writers[i] for part in parts]) for i in range(len(parts[0].load_writers))]
        self._demand = demand or [np.zeros((len(parts), 0))] * 2
        self._groups = [
            (
                group.devices,
                np.tile(group.scale, (len(parts), 1)),
                _stack([part.groups[i].p_writer for part in parts]),
                _stack([part.groups[i].q_writer for part in parts]),
            )
            for i, group in enumerate(parts[0].groups)
        ]
        self._writes = [tuple(writer.write for writer in part.writers) for part in parts]

    def fill_demand(self, day_kw: FloatArray, day_kvar: FloatArray, rows: IntArray) -> tuple[FloatArray, FloatArray]:
        """Take each circuit's row of what loads ask for; give the table's own arrays, shape (n_circuits, n_loads).

        Args:
            day_kw, day_kvar: What loads ask for [kW], [kvar], shape (n_rows, n_loads).
            rows: Row of each circuit, shape (n_circuits,).
        """
        kw, kvar = self._demand
        day_kw.take(rows, 0, kw, "clip")
        day_kvar.take(rows, 0, kvar, "clip")
        return kw, kvar

    def fill_injections(self, p_kw: FloatArray, q_kvar: FloatArray) -> None:
        """Take the devices' setpoints, positive into the grid [kW], [kvar], each shape (n_circuits, n_devices)."""
        for devices, scale, p, q in self._groups:
            np.multiply(p_kw.take(devices, 1, p, "clip"), scale, out=p)
            q_kvar.take(devices, 1, q, "clip")

    def write(self, circuit: int) -> None:
        """Write one circuit's row."""
        for write in self._writes[circuit]:
            write()


def _stack(writers: Sequence[BulkWriter]) -> FloatArray:
    """Put the buffers of writers side by side in one array, shape (n_writers, n)."""
    rows = np.stack([writer.values for writer in writers])
    for writer, row in zip(writers, rows, strict=True):
        writer.move_to(row)
    return rows
