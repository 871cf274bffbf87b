"""Feeders that crash OpenDSS, hang it, ask for all memory or name what should never be read; each is a master file."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

_CIRCUIT = """Clear
New Circuit.h basekv=12.47
New Line.l1 bus1=sourcebus bus2=b length=1 units=km R1=0.3 X1=0.4 normamps=100
New Load.a bus1=b kV=12.47 kW=200 kvar=100
New Capacitor.k bus1=b kV=12.47 kvar=100
{}
Set VoltageBases=[12.47]
CalcVoltageBases
"""
_MANY = 1_900_000_000

#: Lines that stand in a circuit which is otherwise sound.
LINES = {
    "line_phases": "New Line.q phases=100000 bus1=b bus2=c",
    "load_phases": "New Load.q phases=1000000 bus1=b kV=7.2 kW=1",
    "generator_phases": "New Generator.q bus1=b phases=1000000 kv=12.47 kw=1",
    "pv_phases": "New PVSystem.q bus1=b phases=1000000 kv=12.47 pmpp=1",
    "storage_phases": "New Storage.q bus1=b phases=1000000 kv=12.47 kwrated=1",
    "vsource_phases": "New Vsource.q bus1=b phases=1000000 basekv=12.47",
    "isource_phases": "New Isource.q bus1=b phases=1000000 amps=1",
    "fault_phases": "New Fault.q bus1=b phases=1000000",
    "gic_phases": "New GICLine.g bus1=b bus2=c phases=100000",
    "upfc_phases": "New UPFC.u bus1=b bus2=c phases=100",
    "vsconverter_phases": "New VSConverter.v phases=100000 bus1=b",
    "capacitor_phases": "New Capacitor.q bus1=b phases=100000 kvar=100 kv=12.47",
    "later_phases": "Edit Load.a phases=9",
    "transformer_windings": f"New Transformer.t windings={_MANY}",
    "transformer_no_windings": "New Transformer.t windings=-1",
    "autotrans_windings": f"New AutoTrans.a windings={_MANY}",
    "xfmrcode_windings": f"New XfmrCode.x windings={_MANY}",
    "shape_points": f"New LoadShape.s npts={_MANY} interval=1 mult=(1 1)",
    "shape_points_with_hours": f"New LoadShape.s npts={_MANY} interval=0 mult=(1)",
    "curve_points": f"New XYCurve.s npts={_MANY} xarray=(1) yarray=(1)",
    "growth_points": f"New GrowthShape.g npts={_MANY} year=(1) mult=(1)",
    "price_points": f"New PriceShape.g npts={_MANY} interval=1 price=(1)",
    "temperature_points": f"New TShape.g npts={_MANY} interval=1 temp=(1)",
    "tcc_points": f"New TCC_Curve.t npts={_MANY} c_array=(1) t_array=(1)",
    "harmonics": f"New Spectrum.s NumHarm={_MANY} harmonic=(1) %mag=(100) angle=(0)",
    "code_phases": "New LineCode.c nphases=60000 r1=1 x1=1",
    "geometry_conductors": f"New LineGeometry.q nconds={_MANY} nphases=3",
    "spacing_conductors": f"New LineSpacing.q nconds={_MANY} nphases=3 x=(1) h=(1)",
    "capacitor_steps": f"New Capacitor.q bus1=b numsteps={_MANY} kvar=100 kv=12.47",
    "node_below_zero": "New Line.z bus1=b.-5 bus2=c.1 phases=1",
    "node_beyond_32_bits": "New Line.z bus1=b.2147483648 bus2=c.1 phases=1",
    "many_nodes": f"New Load.n kV=12.47 kW=1 bus1=b{'.1' * 5000}",
    "fuse_action": "New Fuse.f MonitoredObj=Line.l1 RatedCurrent=40 action=close",
    "long_name": f"New Load.{'n' * 2_000_000} bus1=b kV=12.47 kW=1",
    "long_bus": f"New Load.n bus1={'n' * 2_000_000} kV=12.47 kW=1",
    "many_parameters": "New Load.n " + "kW=1 " * 100_000,
    "deep_brackets": "New Load.n kW=" + "(" * 100_000,
    "deep_quotes": "New Load.n kW=" + "\"'" * 50_000,
    "long_sum": "New Load.n bus1=b kV=12.47 kW=(" + "1 " * 50_000 + "+ " * 49_999 + ")",
    "division_by_zero": "New Load.n bus1=b kV=12.47 kW=(1 0 /)",
    "overflow": "New Load.n bus1=b kV=12.47 kW=(1e308 10 ^)",
    "variable_of_itself": "Var @x=@x\nNew Load.n bus1=@x kV=12.47 kW=@x",
    "slow_pattern": f"New Load.{'a' * 40} bus1=b kV=12.47 kW=1\nBatchEdit Load.(a+)+(a+)+(a+)+$b kW=2",
    "pattern_of_many": f"New Load.{'a' * 400} bus1=b kV=12.47 kW=1\nBatchEdit Load.a+a+a+a+a+a+$b kW=2",
    "not_finite": "New Line.z bus1=b bus2=c r1=nan x1=inf",
    "no_impedance": "New Line.z bus1=b bus2=c r1=0 x1=0 r0=0 x0=0 c1=0 c0=0",
    "no_length": "New Line.z bus1=b bus2=c length=0",
    "no_bases": "Set VoltageBases=[1e308 -5 nan]",
    "no_source": "Disable Vsource.source",
}  # fmt: skip


def _redirects_to_itself(folder: Path) -> None:
    (folder / "a.dss").write_text("Redirect b.dss\n")
    (folder / "b.dss").write_text("Redirect a.dss\n")


def _chain(folder: Path) -> None:
    for number in range(3000):
        (folder / f"c{number}.dss").write_text(f"Redirect c{number + 1}.dss\n" if number < 2999 else "! the end\n")
    (folder / "a.dss").write_text("Redirect c0.dss\n")


def _doubling(folder: Path) -> None:
    for number in range(40):  # 2 to the 40 lines
        (folder / f"d{number}.dss").write_text(f"Redirect d{number + 1}.dss\n" * 2)
    (folder / "d40.dss").write_text("New Load.x bus1=b\n")
    (folder / "a.dss").write_text("Redirect d0.dss\n")


def _device(folder: Path) -> None:
    (folder / "a.dss").write_text("Redirect /dev/zero\n")


def _device_as_data(folder: Path) -> None:
    (folder / "a.dss").write_text("New LoadShape.s npts=9 interval=1 mult=(file=/dev/zero)\n")


def _device_by_link(folder: Path) -> None:
    (folder / "z.csv").symlink_to("/dev/zero")
    (folder / "a.dss").write_text("New LoadShape.s npts=9 interval=1 mult=(file=z.csv)\n")


def _pipe(folder: Path) -> None:
    os.mkfifo(folder / "a.dss")


def _pipe_as_data(folder: Path) -> None:
    os.mkfifo(folder / "z.csv")
    (folder / "a.dss").write_text("New LoadShape.s npts=9 interval=1 csvfile=z.csv\n")


def _links_in_a_circle(folder: Path) -> None:
    (folder / "a.dss").symlink_to("b.dss")
    (folder / "b.dss").symlink_to("a.dss")


def _folder(folder: Path) -> None:
    (folder / "a.dss").mkdir()


def _socket(folder: Path) -> None:
    here = os.getcwd()
    os.chdir(folder)  # a socket's path may have 107 characters
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind("a.dss")
    finally:
        os.chdir(here)


def _huge(folder: Path) -> None:
    with (folder / "a.dss").open("wb") as stream:
        stream.truncate(1 << 40)  # takes no room


def _huge_data(folder: Path) -> None:
    with (folder / "z.csv").open("wb") as stream:
        stream.truncate(1 << 40)
    (folder / "a.dss").write_text("New LoadShape.s npts=9 interval=1 csvfile=z.csv\n")


def _binary(folder: Path) -> None:
    (folder / "a.dss").write_bytes(bytes(range(256)) * 400)


def _zeros(folder: Path) -> None:
    (folder / "a.dss").write_bytes(b"\0" * 300_000)


def _half_utf16(folder: Path) -> None:
    (folder / "a.dss").write_bytes(b"\xff\xfe" + bytes(range(255)) * 99)


def _data_is_no_table(folder: Path) -> None:
    (folder / "z.csv").write_bytes(bytes(range(256)) * 400)
    (folder / "a.dss").write_text("New LoadShape.s npts=9999 interval=1 csvfile=z.csv\nEdit Load.a daily=s\n")


def _wrong_table(folder: Path) -> None:
    (folder / "z.dbl").write_bytes(b"\xff" * 1003)
    (folder / "a.dss").write_text("New LoadShape.s npts=9999 interval=1 dblfile=z.dbl\nEdit Load.a daily=s\n")


#: What stands in ``a.dss``, which the master redirects to, or beside it.
FILES: dict[str, Callable[[Path], None]] = {
    each.__name__.strip("_"): each
    for each in (
        _redirects_to_itself, _chain, _doubling, _device, _device_as_data, _device_by_link, _pipe, _pipe_as_data,
        _links_in_a_circle, _folder, _socket, _huge, _huge_data, _binary, _zeros, _half_utf16, _data_is_no_table,
        _wrong_table,
    )
}  # fmt: skip


def write_hostile(name: str, folder: Path) -> Path:
    """Write the feeder of a name into a folder of its own and return its master file."""
    folder = folder / name
    folder.mkdir(parents=True)
    if name in LINES:
        text = _CIRCUIT.format(LINES[name])
    else:
        FILES[name](folder)
        text = _CIRCUIT.format("Redirect a.dss")
    (folder / "Master.dss").write_text(text)
    return folder / "Master.dss"
