"""Damaged models and measurements: ``.dss`` files whose lines are cut, mixed and mistyped, and tables of meters."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from damage import Random, damage_bytes, damage_data, nasty

import powergrid
from powergrid.check import check_feeder
from powergrid.errors import FeederError
from powergrid.grid.engine.own_process import TRIAL_VARIABLE
from powergrid.grid.feeder.feeder import read_feeder
from powergrid.measurements import import_profiles

#: How many models are compiled, by a check and where they are played: each takes a second, to read one a millisecond.
_COMPILED = 0.12
_TRIAL_S = 20.0
_HEAD = """Clear
New Circuit.damaged basekv=12.47 pu=1.02
New LoadShape.day npts=4 interval=6 mult=[.5 .8 1 .6]
New XYCurve.curve npts=4 xarray=[.9 .95 1.05 1.1] yarray=[1 0 0 -1]
New LineCode.code nphases=3 units=km r1=.3 x1=.4 r0=.6 x0=1.2 c1=3 c0=2
New Line.head bus1=sourcebus bus2=a linecode=code length=1 units=km normamps=400
New Line.mid bus1=a bus2=b length=1 units=km rmatrix=[.4 | .1 .4 | .1 .1 .4] xmatrix=[.9 | .3 .9 | .3 .3 .9]
New Transformer.t1 windings=2 buses=[a lv] conns=[delta wye] kvs=[12.47 .48] kvas=[750 750] xhl=5
~ wdg=2 tap=1.01 numtaps=16
New RegControl.r transformer=t1 winding=2 vreg=120 band=2 ptratio=2.31
New Capacitor.bank bus1=b kv=12.47 kvar=150
New CapControl.c element=Line.mid capacitor=bank type=kvar onsetting=90 offsetting=30
New Load.l1 bus1=b.1.2.3 kv=12.47 kw=(300 1.1 *) pf=.95 daily=day
New Load.l2 bus1=lv.1 phases=1 kv=.277 kw=50 kvar=10 model=5 status=fixed
Load.l2.kvar=12
Edit Load.l1 conn=delta
New PVSystem.p bus1=b kv=12.47 kva=100 pmpp=90 irradiance=1 daily=day
New Storage.s bus1=b kv=12.47 kwrated=50 kwhrated=200
New InvControl.i mode=voltvar vvc_curve1=curve DERList=[PVSystem.p]
New StorageController.sc element=Line.mid modedis=peakshave kwtarget=300 ElementList=[s]
New Fuse.f MonitoredObj=Line.mid RatedCurrent=200
New Recloser.rc MonitoredObj=Line.head PhaseTrip=900 GroundTrip=900
New SwtControl.sw SwitchedObj=Line.mid SwitchedTerm=1 Action=close
New Generator.g bus1=b kv=12.47 kw=40 model=1
New Reactor.x bus1=b kv=12.47 kvar=50
Var @kv=12.47
New Load.l3 bus1=b kv=@kv kw=10
BatchEdit Load..* vminpu=.9
Open Line.mid 1 2
Close Line.mid 1 2
Set VoltageBases=[12.47 .48]
CalcVoltageBases
"""
_PIECES = (
    *"""= , ( ] " ' ! // | ~ @ @kv . .. - % * ^ nan inf 1e308 -1 0 99999 2147483648 0x10 1e yes like=l1 enabled=no
    phases=9 kv=0 bus1= bus1=x.9 file=x (file=/etc/passwd) /* */ New Edit Clear Open Var Solve daily=none spectrum=
    wdg=9 npts=-1 model=99 DERList=[s]""".split(),  # noqa: SIM905
    *("\t", "\0", "\x0b", "\u00a0", "\u202e", "Redirect Master.dss", "New Circuit.two", "Set mode=yearly"),
    *("Set class=Load", "kw=(1 0 /)", "BatchEdit Load.l[12]"),
)


def _damage_lines(text: str, random: Random) -> str:
    """Drop, repeat, move, join, cut or mistype some lines."""
    lines = text.split("\n")
    for _ in range(random.choice((1, 1, 2, 3, 8))):
        at = random.randrange(len(lines))
        words = lines[at].split(" ")
        word = random.randrange(len(words))
        match random.randint(0, 9):
            case 0:
                del lines[at : at + random.choice((1, 1, 3))]
            case 1:
                lines.insert(random.randrange(len(lines) + 1), lines[at])
            case 2:
                other = random.randrange(len(lines))
                lines[at], lines[other] = lines[other], lines[at]
            case 3:
                lines[at] = lines[at] + random.choice(("", " ")) + lines[random.randrange(len(lines))]
            case 4:
                lines[at] = lines[at][: random.randrange(len(lines[at]) + 1)]
            case 5:
                words[word] = random.choice(_PIECES)
                lines[at] = " ".join(words)
            case 6:
                name, _, _ = words[word].partition("=")
                words[word] = f"{name}={random.choice(_PIECES)}"
                lines[at] = " ".join(words)
            case 7:
                other_words = lines[random.randrange(len(lines))].split(" ")
                words.insert(word, random.choice(other_words))
                lines[at] = " ".join(words)
            case 8:
                where = random.randrange(len(lines[at]) + 1)
                lines[at] = lines[at][:where] + random.choice(_PIECES) + lines[at][where:]
            case _:
                lines[at : at + 1] = lines[at].replace(" ", random.choice(("\n~ ", "  ", "\t", " , ")), 2).split("\n")
        lines = lines or [""]
    return "\n".join(lines)


@contextmanager
def _tried() -> Iterator[None]:
    """Let models be tried in processes of their own, as they are where nobody says otherwise."""
    before = os.environ.get(TRIAL_VARIABLE)
    os.environ[TRIAL_VARIABLE] = str(_TRIAL_S)
    try:
        yield
    finally:
        os.environ.pop(TRIAL_VARIABLE) if before is None else os.environ.update({TRIAL_VARIABLE: before})


def try_model(random: Random, folder: Path) -> None:
    """A ``.dss`` file with lines that are none, read, and some of them checked and played."""
    content = _damage_lines(_HEAD, random).encode("utf-8", "surrogateescape")
    if random.random() < 0.2:
        content = damage_bytes(content, random)
    own = folder / "net"
    own.mkdir()
    (own / "Master.dss").write_bytes(content)
    compiled = random.random() < _COMPILED
    before = sorted(own.iterdir())
    try:
        read_feeder(own / "Master.dss")
        if compiled:
            with _tried():
                env = powergrid.make(str(own / "Master.dss"), episode_length=4)
                try:
                    env.reset(seed=0)
                    env.step({agent: env.action_space(agent).sample() for agent in env.agents})
                    env.describe()
                finally:
                    env.close()
    except FeederError as error:
        if not all(problem.code for problem in error.details):
            raise AssertionError(f"a problem without a code: {error}") from error
        raise
    finally:
        if compiled:
            outcome = check_feeder(own / "Master.dss", timeout_s=_TRIAL_S).outcome
            if outcome not in ("complete", "crashed", "timed out"):
                raise AssertionError(f"a check that is {outcome!r}")
        if sorted(own.iterdir()) != before:
            raise AssertionError(f"files were written: {sorted(own.iterdir())}")


@functools.cache
def _feeder() -> Any:
    return read_feeder("ieee13")


_CELLS = (None, "x", float("inf"), float("nan"), 1e308, -1, "2018-13-01", True, "1,5", "", b"x", "2018-03-11 02:30")


def _measured(random: Random) -> pd.DataFrame:
    rows = random.choice((1, 48, 96, 192, 192, 192))
    times = pd.date_range("2018-03-10", periods=rows, freq=random.choice(("h", "15min", "30min")))
    shape = np.linspace(0.2, 1.0, rows)
    frame = pd.DataFrame({"time": times, "671 [kW]": 1000 * shape, "634a [kW]": 150 * shape, "634a [kvar]": 50 * shape,
                          "head [kW]": 3000 * shape, "pv_pu": shape, "price [USD/kWh]": 0.1 * shape})  # fmt: skip
    if random.random() < 0.2:
        frame = frame.melt(id_vars="time", var_name="meter", value_name="kW")
    return frame


def try_import(random: Random, folder: Path) -> None:
    """A table of meters, and a map of its columns, with what is none of either."""
    frame = _measured(random)
    for _ in range(random.choice((0, 0, 1, 1, 2))):
        if not len(frame) or not len(frame.columns):
            break
        column = random.choice(list(frame.columns))
        match random.randint(0, 5):
            case 0:
                frame = frame.drop(columns=[column])
            case 1:
                name: Any = random.choice(("", "x", 1, None, "671", "671 [furlong]", "time", "652 [kWh]", "irradiance"))
                frame = frame.rename(columns={column: name})
            case 2:
                frame = frame.sample(frac=random.choice((0.5, 1.0)), random_state=random.randrange(10))
            case _ if list(frame.columns).count(column) == 1:
                value: Any = random.choice(_CELLS)
                frame[column] = frame[column].astype(object)
                frame.iloc[random.randrange(len(frame)), list(frame.columns).index(column)] = value
            case _:
                pass
    source: Any = frame
    if random.random() < 0.6:
        source = folder / random.choice(("table.csv", "table.csv.gz", "table.parquet", "table.xlsx", "table.txt"))
        try:
            if source.suffix == ".parquet":
                frame.to_parquet(source)
            else:
                frame.to_csv(
                    source, index=False, sep=random.choice((",", ";", "\t")), decimal=random.choice((".", ","))
                )
        except Exception:  # noqa: BLE001 (pandas cannot write this one)
            source.write_bytes(random.randbytes(200))
        if random.random() < 0.4:
            source.write_bytes(damage_bytes(source.read_bytes(), random))
    elif random.random() < 0.2:
        source = random.choice((nasty(random), [nasty(random)], [frame, frame]))
    columns = {"671 [kW]": {"load": "671"}, "head [kW]": {"head": True, "unit": "kW"}, "pv_pu": {"weather": "pv"}}
    plain: dict[str, Any] = {
        "columns": columns, "time": {"column": "time", "zone": "America/New_York", "format": "auto"},
        "step_minutes": 60, "gaps": {"rule": "interpolate"}, "outliers": {"rule": "clip", "spread": 9},
        "allocate": "energy", "energy_kwh": {"671": 10}, "limits": {"demand_pu": 3.0}, "losses_percent": 2,
    }  # fmt: skip
    given: Any = random.choice(({}, {}, {"columns": columns}, plain, damage_data(plain, random), nasty(random)))
    imported = import_profiles(source, _feeder(), given)
    if random.random() < 0.3:
        imported.write(folder / "imported")
        powergrid.make("ieee13_mg", profiles={"source": str(folder / "imported"), "tariff": imported.tariff}).close()
