"""Days of every shipped scenario, face and baseline are played as they were when ``days.json`` was recorded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from scripts.record_days import digest, find_differences, list_plays

RECORD = json.loads((Path(__file__).parent / "days.json").read_text())
#: Another processor's array library adds up in another order; what the grid does with that stays far below.
TOLERANCE = 1e-9


def test_record_holds_every_play() -> None:
    assert sorted(RECORD) == sorted(list_plays())


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(RECORD))
def test_day_is_played_as_recorded(name: str) -> None:
    differences = find_differences(name, digest(list_plays()[name]()), RECORD[name], TOLERANCE)
    assert not differences, "\n".join(differences)
