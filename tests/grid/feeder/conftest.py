from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from powergrid.grid.engine import cache_folder, property_tables
from powergrid.grid.feeder.compile import networks
from powergrid.grid.feeder.feeder import scans
from powergrid.grid.feeder.network import Network


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the test's own, nothing remembered."""
    property_tables()  # what the engine says of itself is kept elsewhere
    place = tmp_path / "cache"
    monkeypatch.setenv(cache_folder.FOLDER_VARIABLE, str(place))
    forget()
    return place


def forget() -> None:
    """Drop what this process remembers, as a new one would not know it."""
    scans.forget()
    networks.forget()


def spoil(file: Path, damage: str) -> None:
    """Do to a file what a full disk, a kill or a stranger may do."""
    whole = file.read_bytes()
    if damage == "folder":
        file.unlink()
        file.mkdir()
    else:
        flipped = bytes(byte ^ 0xFF if i % 97 == 0 else byte for i, byte in enumerate(whole))
        spoilt = {"empty": b"", "half": whole[: len(whole) // 2], "flipped": flipped, "text": b"something else"}
        file.write_bytes(spoilt[damage])


def points_of(network: Network, name: str) -> np.ndarray:
    """Return the active values of a feeder's LoadShape."""
    return network.shapes.points(network.shapes.names.index(name))[0]
