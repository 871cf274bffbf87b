"""The corpus of small masters: every class and property of the engine's schema, and all of it solves in the engine."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from powergrid.grid.engine import Engine, property_tables
from tests.corpus import LEFT_OUT, write_masters


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_masters(tmp_path_factory.mktemp("corpus"))


def test_corpus_uses_every_class_and_property_of_the_schema(written: list[Path]) -> None:
    text = "\n".join(path.read_text().lower() for path in written)
    said: dict[str, set[str]] = {}
    for command in re.sub(r"\n~", " ", text).splitlines():
        if found := re.match(r'new "?(\w+)\.', command):
            said.setdefault(found[1], set()).update(re.findall(r"\s([%\w-]+)=", command))
    unused = {(c, p) for c, table in property_tables().items() for p in table if p not in said.get(c, set())}
    some = {(c, p) for c in property_tables() for p in ("like", "enabled")}  # which stand in a few
    assert unused - some <= {(c.lower(), p) for c, p in LEFT_OUT}


def test_corpus_solves_in_the_engine_by_itself(written: list[Path]) -> None:
    assert len(written) == 60
    engine = Engine()
    for master in written:
        engine.clear()
        engine.set_folder(master.parent)
        engine.command(f'redirect "{master}"')
        assert engine.solve(), master.parent.name
        assert np.isfinite(engine.voltages(len(engine.node_names()))).all(), master.parent.name
    engine.leave_folder()
    engine.close()
