"""Small masters that use every class and property of the engine's schema: what strangers' models may be made of.

Each is about one class: lines by hand for what needs its company (curves, files, what a control moves), then an element
``x`` whose remaining properties are written out at the values that the engine itself has for them.

Usage: python -m tests.corpus FOLDER
"""

from __future__ import annotations

import re
import struct
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from powergrid.grid.engine import Engine, property_tables

HEAD = """Clear
New Circuit.{name} basekv=12.47 pu=1.02 mvasc3=200 mvasc1=180
New LoadShape.day npts=24 interval=1 mult=[.5 .45 .4 .4 .4 .5 .6 .7 .8 .8 .8 .8 .8 .8 .8 .8 .9 1 1 .95 .9 .8 .7 .6]
New LoadShape.sun npts=24 interval=1 mult=[0 0 0 0 0 .05 .2 .4 .6 .8 .9 1 1 .95 .85 .7 .5 .3 .1 0 0 0 0 0]
New LoadShape.half npts=48 interval=.5 mult=(file=half.csv)
New Line.head bus1=sourcebus bus2=a length=1 units=km r1=.2 x1=.4 r0=.5 x0=1.2 c1=0 c0=0 normamps=400
New Line.mid bus1=a bus2=b length=1 units=km r1=.3 x1=.4 r0=.6 x0=1.2 c1=3 c0=2 normamps=300
New Transformer.t1 windings=2 buses=[a lv] conns=[delta wye] kvs=[12.47 .48] kvas=[750 750] xhl=5 %loadloss=1
New Capacitor.bank bus1=b kv=12.47 kvar=150
New Load.l1 bus1=b kv=12.47 kw=300 pf=.95 daily=day
New Load.l2 bus1=lv kv=.48 kw=150 kvar=50 yearly=half
"""
TAIL = """Set VoltageBases=[12.47 .48]
CalcVoltageBases
Solve
"""
_BODIES = Path(__file__).with_suffix(".txt")
#: Properties that no master can have, and why.
LEFT_OUT: dict[tuple[str, str], str] = {
    ("EnergyMeter", "zonelist"): "ends the process of the engine",
    ("XYcurve", "points"): "ends the process of the engine",
    ("Fuse", "action"): "writes beyond the memory of the engine",
    ("ESPVLControl", "localcontrollist"): "the engine finds none of its own kind",
    ("ESPVLControl", "localcontrolweights"): "the engine finds none of its own kind",
    **{("StorageController", name): "only shown" for name in ("kwactual", "kwhactual", "kwtotal", "kwhtotal")},
    ("IndMach012", "pf"): "only shown",
    ("Storage", "%idlingkvar"): "deprecated",
    ("InvControl", "vv_refreactivepower"): "deprecated",
    ("Relay", "variable"): "not used by the engine",
    **{(c, "action"): "writes a file" for c in ("TShape", "PriceShape")},
    **{
        (c, name): "loads a library"
        for c in ("Generator", "Storage", "PVSystem", "CapControl")
        for name in ("usermodel", "userdata", "shaftmodel", "shaftdata", "dynadll", "dynadata")
    },
    **{
        (c, name): "for dynamics alone"
        for c in ("Generator", "Storage", "PVSystem")
        for name in ("dynamiceq", "dynout")
    },
}
_NOT_FILLED = ("enabled", "like")


def bodies() -> dict[tuple[str, str], str]:
    """Return what each master has of its own, by what it is about: a ``class``, or classes ``together``."""
    _, *sections = re.split(r"^=== (\w+) (\w+)\n", _BODIES.read_text(encoding="utf-8"), flags=re.M)
    return {(what, name): text.rstrip() + "\n" for what, name, text in zip(*[iter(sections)] * 3, strict=True)}


def masters() -> Iterator[tuple[str, str]]:
    """Yield the name and text of each master."""
    engine = Engine()
    try:
        for (what, name), text in bodies().items():
            filled = text.replace("@\n", _fill(engine, name, text)) if what == "class" else text
            yield name.lower(), _frame(name, filled)
    finally:
        engine.close()


def write_masters(folder: Path) -> list[Path]:
    """Write the masters and the files that they name, a folder each, and return their paths."""
    written = []
    for name, text in masters():
        home = folder / name
        home.mkdir(parents=True, exist_ok=True)
        _write_files(home)
        (home / "master.dss").write_text(text, encoding="utf-8")
        written.append(home / "master.dss")
    return written


def _frame(name: str, text: str) -> str:
    # What sets voltage bases of its own has them in place of the common ones.
    tail = TAIL.replace(TAIL.splitlines()[0] + "\n", "") if "VoltageBases" in text else TAIL
    return HEAD.format(name=name.lower()) + text + tail


def _fill(engine: Engine, class_name: str, text: str) -> str:
    """Return lines that write out the properties of ``x`` that nothing in the text has, at the engine's own values."""
    text = re.sub(r"^~ ", "", text, flags=re.M).lower()
    said = set(re.findall(r"(?:^|\s)([%\w-]+)=", text))
    return "".join(
        f"~ {name}={value}\n"
        for name, value in _defaults(engine, class_name, text)
        if name not in said and (class_name, name) not in LEFT_OUT and name not in _NOT_FILLED and value
    )


def _defaults(engine: Engine, class_name: str, text: str) -> Iterator[tuple[str, str]]:
    """Yield the properties of ``x`` and what the engine has for them, quoted as it reads them."""
    with tempfile.TemporaryDirectory() as folder:
        _write_files(Path(folder))
        engine.clear()
        engine.set_folder(Path(folder))
        before = _frame(class_name, text).split("@\n")[0].splitlines() if "@" in text else []
        for line in before:
            engine.command(line)
        for name in property_tables()[class_name.lower()]:
            value = engine.command(f'? "{class_name}.x.{name}"').strip()
            bare = value.strip("\"[](){}' ")
            yield name, f"[{bare}]" if " " in bare or "," in bare or "|" in bare else bare
        engine.leave_folder()


def _write_files(folder: Path) -> None:
    """Write the tables that masters name."""
    ramp = [0.4 + 0.02 * i for i in range(24)]
    files: dict[str, str] = {
        "half.csv": "\n".join(f"{0.4 + 0.01 * i:g}" for i in range(48)),
        "mult.csv": "\n".join(f"{each:g}" for each in ramp),
        "quarters.csv": "\n".join(f"{i},{0.3 + 0.005 * i:g}" for i in range(96)),
        "pq.csv": "\n".join(f"{each:g},{each / 2:g}" for each in ramp),
        "curve.csv": "\n".join(f"{i},{each:g}" for i, each in enumerate(ramp)),
        "growth.csv": "1,1.02\n2,1.03\n3,1.01",
        "spectrum.csv": "1,100,0\n3,20,0",
    }
    for name, text in files.items():
        (folder / name).write_text(text + "\n")
    for name, form, values in (("mult.sng", "f", ramp), ("mult.dbl", "d", ramp), ("two.sng", "f", [1.0, 1.02] * 2),
                               ("two.dbl", "d", [1.0, 1.02] * 2)):  # fmt: skip
        (folder / name).write_bytes(struct.pack(f"<{len(values)}{form}", *values))


if __name__ == "__main__":
    for path in write_masters(Path(sys.argv[1])):
        sys.stdout.write(f"{path}\n")
