"""Compiled circuits: setpoints written, power flows solved, snapshots read."""

from __future__ import annotations

from powergrid.grid.circuit.circuit import Circuit, Injection, network_of
from powergrid.grid.circuit.snapshot import Snapshot

__all__ = ["Circuit", "Injection", "Snapshot", "network_of"]
