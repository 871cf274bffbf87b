"""A small feeder and tables of it: two streets behind two transformers, one load without a meter in each."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

FEEDER = """
Clear
New Circuit.streets basekv=4.16 pu=1.0 phases=3 bus1=source
New Line.l1 bus1=source bus2=mid length=0.5 units=km r1=0.1 x1=0.2 r0=0.3 x0=0.6 c1=0 c0=0
New Transformer.t1 phases=3 windings=2 buses=(mid east) kvs=(4.16 0.4) kvas=(500 500) xhl=4
New Transformer.t2 phases=3 windings=2 buses=(mid west) kvs=(4.16 0.4) kvas=(500 500) xhl=4
New Load.e1 bus1=east phases=3 kv=0.4 kw=60 kvar=20 model=1 vminpu=0.5 vmaxpu=1.5
New Load.e2 bus1=east phases=3 kv=0.4 kw=30 kvar=10 model=1 vminpu=0.5 vmaxpu=1.5
New Load.w1 bus1=west.1 phases=1 kv=0.231 kw=20 kvar=5 model=1 vminpu=0.5 vmaxpu=1.5
New Load.w2 bus1=west phases=3 kv=0.4 kw=40 kvar=0 model=1 vminpu=0.5 vmaxpu=1.5
New Load.zero bus1=west phases=3 kv=0.4 kw=0 kvar=0 model=1 vminpu=0.5 vmaxpu=1.5
New Capacitor.bank bus1=mid kv=4.16 kvar=20
Set VoltageBases=[4.16 0.4]
CalcVoltageBases
"""


@pytest.fixture
def feeder(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    master = folder / "streets.dss"
    master.write_text(FEEDER)
    return master


def make_times(start: str = "2024-01-01", days: int = 21, step: int = 60) -> pd.DatetimeIndex:
    return pd.date_range(start, periods=days * 1440 // step, freq=f"{step}min")


def make_kw(times: pd.DatetimeIndex, peak: float, seed: int = 0) -> np.ndarray:
    hour = times.hour.to_numpy() + times.minute.to_numpy() / 60
    noise = np.random.default_rng(seed).uniform(0.95, 1.0, len(times))
    return np.round(peak * (0.6 + 0.4 * np.sin((hour - 12) / 24 * 2 * np.pi)) * noise, 3)
