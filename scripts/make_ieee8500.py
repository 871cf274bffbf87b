"""Write ``dss_models/ieee8500`` from tables of the IEEE 8500-node test feeder.

The tables are one CSV for each class of element, its columns OpenDSS properties, and the solved reference. They are not
part of this project: pass their folder. Equal tables give equal files, byte for byte; ``README.md`` is written by hand.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import networkx as nx

Row = Mapping[str, str]

DEFAULT_TARGET = Path(__file__).resolve().parent.parent / "dss_models" / "ieee8500"
SOURCE_BUS = "sourcebus"
# Bank of regulators at the head of an area, and what the area is called in comments.
AREAS = {
    "feeder_reg": "area of feeder_reg, from the substation",
    "vreg2": "area of vreg2",
    "vreg3": "area of vreg3",
    "vreg4": "area of vreg4",
}
PHASES = {1: "one phase", 2: "two phases", 3: "three phases"}
MATRICES = ("RMatrix", "XMatrix", "CMatrix")
SEQUENCES = ("R1", "X1", "R0", "X0", "C1", "C0")


@dataclass(frozen=True)
class Plan:
    """The order of the feeder, walked from its source.

    Attributes:
        place: Bus to its place in the walk.
        area: Bus to the bank of regulators that it hangs from.
    """

    place: Mapping[str, int]
    area: Mapping[str, str]

    def end(self, buses: Iterable[str]) -> str:
        """Return the farthest bus of an element."""
        return max((bus.split(".")[0] for bus in buses), key=self.place.__getitem__)


def read_table(folder: Path, name: str) -> list[dict[str, str]]:
    """Read one table; its columns are OpenDSS property names."""
    with (folder / f"{name}.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def walk(tables: Mapping[str, Sequence[Row]]) -> Plan:
    """Walk the radial feeder from its source, branch by branch.

    Raises:
        ValueError: The closed lines form a loop or do not reach every bus.
    """
    graph: nx.Graph[str] = nx.Graph()
    for row in (*tables["Line"], *tables["Reactor"]):
        if row.get("Enabled") != "False":
            graph.add_edge(row["Bus1"].split(".")[0], row["Bus2"].split(".")[0], bank="")
    for row in tables["Transformer"]:
        primary, secondary = (bus.split(".")[0] for bus in row["Bus"].split()[:2])
        graph.add_edge(primary, secondary, bank=row["Bank"].lower())
    if not nx.is_tree(graph) or set(graph) != {row["Name"] for row in tables["Bus"]}:
        raise ValueError("the tables do not describe one radial feeder")
    place, area = {SOURCE_BUS: 0}, {SOURCE_BUS: ""}
    for near, far in nx.dfs_edges(graph, SOURCE_BUS):
        place[far] = len(place)
        area[far] = graph.edges[near, far]["bank"] or area[near]
    return Plan(place, area)


def number(text: str) -> str:
    """Write a number without the digits that only a binary fraction adds: 1.0999999999999999 is 1.1."""
    return f"{float(text):.10g}"


def numbers(text: str) -> str:
    """Write a list of numbers as OpenDSS reads it."""
    return f"[{', '.join(number(item) for item in text.split())}]"


def triangle(text: str) -> str:
    """Write the lower triangle of a symmetric matrix given in full."""
    rows = [row.split() for row in text.split("|")]
    lower = [" ".join(number(item) for item in row[: i + 1]) for i, row in enumerate(rows)]
    return f"[{' | '.join(lower)}]"


def align(commands: Sequence[Sequence[str]]) -> Iterator[str]:
    """Set commands in columns, word under word; empty words keep their column free."""
    width = max(len(words) for words in commands)
    padded = [(*words, *[""] * (width - len(words))) for words in commands]
    widths = [max(len(word) for word in column) for column in zip(*padded, strict=True)]
    for words in padded:
        columns = [word.ljust(size) for word, size in zip(words, widths, strict=True) if size]
        yield " ".join(columns).rstrip()


def by_area(
    rows: Iterable[Row],
    plan: Plan,
    buses: Callable[[Row], Iterable[str]],
    command: Callable[[Row], Sequence[str]],
    title: str = "",
) -> Iterator[str]:
    """Write one command for each row, area by area, each from its regulators outwards."""
    sections: dict[str, list[tuple[int, Row]]] = {area: [] for area in AREAS}
    for row in rows:
        end = plan.end(buses(row))
        sections[plan.area[end]].append((plan.place[end], row))
    for area, members in sections.items():
        if members:
            members.sort(key=lambda member: (member[0], member[1]["Name"]))
            heading = f"{title}, {AREAS[area]}" if title else AREAS[area].capitalize()
            yield from ("", f"! {heading}", *align([command(row) for _, row in members]))


def line_codes(rows: Sequence[Row]) -> Iterator[str]:
    """Write the line codes: overhead and cable per kilometre, service drops per thousand feet."""
    yield "! ieee8500: line codes"
    yield "! Ohm and nanofarad per kilometre, of service drops per thousand feet; lower triangles."
    yield "! Overhead lines have no rating: the data give no ampacity of their conductors."
    order = sorted(rows, key=lambda row: (row["Units"] != "km", -int(row["NPhases"]), bool(row["R1"]), row["Name"]))
    title = ""
    for row in order:
        kind = "Service drops" if row["Units"] == "kft" else "Underground" if row["R1"] else "Overhead"
        if title != (title := f"! {kind}, {PHASES[int(row['NPhases'])]}"):
            yield from ("", title)
        given = [f" {key}={number(row[key])}" for key in ("NormAmps", "EmergAmps") if row[key]]
        yield f"New LineCode.{row['Name']} NPhases={row['NPhases']} BaseFreq=60 Units={row['Units']}{''.join(given)}"
        if row["R1"]:
            yield "~ " + " ".join(f"{name}={number(row[name])}" for name in SEQUENCES)
        elif row["NPhases"] == "1":
            yield "~ " + " ".join(f"{name}={triangle(row[name])}" for name in MATRICES)
        else:
            yield from (f"~ {name}={triangle(row[name])}" for name in MATRICES)


def line(row: Row, phases: int) -> list[str]:
    """Write a line of a line code, or a switch or connector of stated impedance."""
    words = [f"New Line.{row['Name']}", f"Phases={phases}", f"Bus1={row['Bus1']}", f"Bus2={row['Bus2']}"]
    length = f"Length={number(row['Length'])}"
    if row["LineCode"]:
        return [*words, f"LineCode={row['LineCode']}", length, f"Units={row['Units']}"]
    impedance = [f"{name}={number(row[name])}" for name in SEQUENCES]
    switch = "Switch=yes" if row["Switch"] == "True" else ""
    return [*words, switch, *impedance, length, "Enabled=no" if row["Enabled"] == "False" else ""]


def lines(tables: Mapping[str, Sequence[Row]], plan: Plan) -> Iterator[str]:
    """Write the medium-voltage lines, by number of phases, then what has no length: connectors and switches."""
    phases_of_code = {row["Name"]: int(row["NPhases"]) for row in tables["LineCode"]}

    def phases(row: Row) -> int:
        return phases_of_code.get(row["LineCode"]) or int(row["Phases"] or 3)

    yield "! ieee8500: medium-voltage lines, switches and connectors"
    yield "! Lengths in kilometres. By number of phases, then area by area, each from its regulators outwards."
    yield "! Connectors are at the substation and where the capacitors' controls measure."
    primary = [row for row in tables["Line"] if row["Units"] == "km"]
    for count in (3, 2, 1):
        rows = [row for row in primary if phases(row) == count]
        yield from by_area(rows, plan, ends, lambda row: line(row, phases(row)), PHASES[count].capitalize())
    short = [row for row in tables["Line"] if row["Units"] == "none"]
    for title, wanted in (
        ("Connectors", ("", "")),
        ("Closed switches", ("True", "")),
        ("Normally open switches", ("True", "False")),
    ):
        rows = [row for row in short if (row["Switch"], row["Enabled"]) == wanted]
        yield from by_area(rows, plan, ends, lambda row: line(row, phases(row)), title)


def ends(row: Row) -> tuple[str, str]:
    """Return the two buses of a line."""
    return row["Bus1"], row["Bus2"]


def service_lines(tables: Mapping[str, Sequence[Row]], plan: Plan) -> Iterator[str]:
    """Write the service drops from the transformers to the loads."""
    yield "! ieee8500: service drops, from each service transformer to its load"
    yield "! Two phase conductors of 120 V; the neutral is reduced into them. Lengths in feet."
    yield from by_area([r for r in tables["Line"] if r["Units"] == "ft"], plan, ends, lambda row: line(row, 2))


def transformers(tables: Mapping[str, Sequence[Row]]) -> Iterator[str]:
    """Write the source's reactor, the substation transformer and the regulators."""
    yield "! ieee8500: substation and regulator transformers"
    yield "! Per winding. kVs: line to line for three phases, across the winding for one."
    yield "! XHL, %Rs, %LoadLoss: percent on kVAs. ppm_Antifloat=0: no shunt added to keep a winding from floating."
    yield from ("", "! The transmission system's impedance [ohm]")
    for row in tables["Reactor"]:
        amps = f"NormAmps={number(row['NormAmps'])} EmergAmps={number(row['EmergAmps'])}"
        yield f"New Reactor.{row['Name']} Bus1={row['Bus1']} Bus2={row['Bus2']} Phases=3 Z={numbers(row['Z'])} {amps}"
    sections: dict[str, list[Row]] = {}
    for row in tables["Transformer"]:
        if not row["XfmrCode"]:
            sections.setdefault(row["Bank"], []).append(row)
    for bank, rows in sections.items():
        yield from (
            "",
            f"! Regulators {bank.lower()}" if bank else "! Substation, 115 kV delta to 12.47 kV grounded wye",
        )
        yield from align([transformer(row) for row in rows])


def transformer(row: Row) -> list[str]:
    """Write a two-winding transformer; taps from 0.9 to 1.1 pu are the engine's own range."""
    if (row["MinTap"], row["MaxTap"]) not in (("", ""), ("0.9 0.9", "1.1 1.1")):
        raise ValueError(f"Transformer.{row['Name']}: taps from {row['MinTap']} to {row['MaxTap']}")
    return [
        f"New Transformer.{row['Name']}",
        f"Phases={row['Phases']} Windings=2",
        f"Buses=[{', '.join(row['Bus'].split())}]",
        f"Conns=[{', '.join(row['Conn'].split())}]",
        f"kVs={numbers(row['kV'])} kVAs={numbers(row['kVA'])} XHL={number(row['X12'])}",
        f"%Rs={numbers(row['pctR'])}" if row["pctR"] else f"%LoadLoss={number(row['pctLoadLoss'])}",
        f"ppm_Antifloat={number(row['ppm_Antifloat'])}" if row["ppm_Antifloat"] else "",
        f"Bank={row['Bank'].lower()}" if row["Bank"] else "",
    ]


def service_transformers(tables: Mapping[str, Sequence[Row]], plan: Plan) -> Iterator[str]:
    """Write the service transformers and their codes."""
    yield "! ieee8500: service transformers, 7.2 kV to 120/240 V with centre tap"
    yield "! Per winding: the primary, then the two halves of the secondary, the second one turned to lie in series."
    yield "! XHL, XHT, XLT, %Rs, %IMag, %NoLoadLoss: percent on kVAs."
    yield ""
    yield from align([
        [
            f"New XfmrCode.{row['Name']}",
            f"Phases={row['Phases']} Windings=3 kVs={numbers(row['kV'])}",
            f"kVAs={numbers(row['kVA'])}",
            f"%Rs={numbers(row['pctR'])} XHL={number(row['X12'])} XHT={number(row['X13'])} XLT={number(row['X23'])}",
            f"%IMag={number(row['pctIMag'])} %NoLoadLoss={number(row['pctNoLoadLoss'])}",
        ]
        for row in tables["XfmrCode"]
    ])  # fmt: skip
    rows = [row for row in tables["Transformer"] if row["XfmrCode"]]
    yield from by_area(rows, plan, lambda row: row["Bus"].split(), lambda row: [
        f"New Transformer.{row['Name']}", f"XfmrCode={row['XfmrCode']}", f"Buses=[{', '.join(row['Bus'].split())}]"
    ])  # fmt: skip


def regulators(rows: Sequence[Row]) -> Iterator[str]:
    """Write the regulators' controls."""
    yield from (
        "! ieee8500: regulator controls, one for each phase",
        "! VReg and Band in volts at the relay; no line-drop compensation.",
        "",
    )
    yield from align([
        [
            f"New RegControl.{row['Name']}", f"Transformer={row['Transformer']}", f"Winding={row['Winding']}",
            f"VReg={number(row['VReg'])}", f"Band={number(row['Band'])} PTRatio={number(row['PTRatio'])}",
        ]
        for row in rows
    ])  # fmt: skip


def loads(rows: Sequence[Row], plan: Plan) -> Iterator[str]:
    """Write the loads."""
    yield "! ieee8500: loads"
    yield "! Model 1 constant power, constant impedance below VMinpu. Half of each is on either 120 V leg; 0.208 kV is"
    yield "! the engine's line to line voltage of such legs. Status=Fixed: a load multiplier leaves it alone."
    yield from by_area(rows, plan, lambda row: [row["Bus1"]], lambda row: [
        f"New Load.{row['Name']}", f"Bus1={row['Bus1']}", f"Phases={row['Phases']}", f"Conn={row['Conn']}",
        f"Model={row['Model']}", f"kV={number(row['kV'])}", f"kW={number(row['kW'])}", f"PF={number(row['PF'])}",
        f"VMinpu={number(row['VMinpu'])}", "Status=Fixed" if row["Status"] == "Fixed" else "",
    ])  # fmt: skip


def capacitors(tables: Mapping[str, Sequence[Row]]) -> Iterator[str]:
    """Write the capacitor banks and their controls."""
    yield "! ieee8500: capacitor banks in wye and their controls"
    yield "! kvar in total; kV line to line for three phases, to neutral for one."
    yield ""
    yield from align([
        [
            f"New Capacitor.{row['Name']}", f"Bus1={row['Bus1']}", f"Phases={row['Phases'] or 3} Conn={row['Conn']}",
            f"kvar={number(row['kvar'])}", f"kV={number(row['kV'])}",
        ]
        for row in tables["Capacitor"]
    ])  # fmt: skip
    yield ""
    yield "! On above OnSetting, off below OffSetting [kvar through the connector]; outside VMin..VMax [V to neutral]"
    yield "! the voltage decides. Delay, DelayOff in seconds. capbank3 has no control and is always on."
    yield from align([
        [
            f"New CapControl.{row['Name']}", f"Capacitor={row['Capacitor']}",
            f"Element={row['Element']} Terminal={row['Terminal']} Type={row['Type']}",
            f"PTRatio={number(row['PTRatio'])} CTRatio={number(row['CTRatio'])}",
            f"OnSetting={number(row['OnSetting'])} OffSetting={number(row['OffSetting'])}",
            f"VoltOverride={'yes' if row['VoltOverride'] == 'True' else 'no'}",
            f"VMin={number(row['VMin'])} VMax={number(row['VMax'])}",
            f"Delay={number(row['Delay'])} DelayOff={number(row['DelayOff'])}",
        ]
        for row in tables["CapControl"]
    ])  # fmt: skip


def master(source: Row) -> Iterator[str]:
    """Write the master file."""
    z1, z0 = numbers(source["Z1"]), numbers(source["Z0"])
    yield "! IEEE 8500-node test feeder: 12.47 kV, large, with 120/240 V service transformers and drops."
    yield "! What is modelled how, and how well it agrees: README.md"
    yield ""
    yield "! A stiff source; Z1 and Z0 in ohms. The transmission system's impedance is a reactor in Transformers.dss."
    yield (
        f"New Circuit.ieee8500 Bus1={source['Bus1']} Phases=3 BasekV={number(source['BasekV'])} "
        f"pu={number(source['pu'])} Z1={z1} Z0={z0}"
    )
    yield ""
    for part in ("LineCodes", "Transformers", "Regulators", "Lines", "ServiceTransformers", "ServiceLines", "Loads"):
        yield f"Redirect {part}.dss"
    yield "Redirect Capacitors.dss"
    yield ""
    yield "Set VoltageBases=[115, 12.47, 0.208]"
    yield "CalcVoltageBases"
    yield "BusCoords BusCoords.csv"


def bus_coordinates(rows: Sequence[Row], plan: Plan) -> Iterator[str]:
    """Write the buses' places [ft], in the order of the walk."""
    for row in sorted(rows, key=lambda row: plan.place[row["Name"]]):
        yield f"{row['Name']}, {float(row['X']):.1f}, {float(row['Y']):.1f}"


def reference_voltages(rows: Sequence[Row]) -> Iterator[str]:
    """Write the solved node voltages."""
    yield "node,v_pu,angle_deg"
    for row in rows:
        yield f"{row['node']},{row['v_pu']},{row['angle_deg']}"


def reference_taps(rows: Sequence[Row]) -> Iterator[str]:
    """Write the taps of that solution."""
    yield "regcontrol,transformer,tap_number"
    for row in rows:
        yield f"{row['regcontrol']},{row['transformer']},{row['tap_number']}"


def make(folder: Path) -> dict[str, str]:
    """Return the text of each file, by name."""
    names = ("Bus", "CapControl", "Capacitor", "Line", "LineCode", "Load", "Reactor", "RegControl", "Transformer")
    tables = {name: read_table(folder, name) for name in (*names, "Vsource", "XfmrCode")}
    plan = walk(tables)
    files = {
        "Master.dss": master(tables["Vsource"][0]),
        "LineCodes.dss": line_codes(tables["LineCode"]),
        "Transformers.dss": transformers(tables),
        "Regulators.dss": regulators(tables["RegControl"]),
        "Lines.dss": lines(tables, plan),
        "ServiceTransformers.dss": service_transformers(tables, plan),
        "ServiceLines.dss": service_lines(tables, plan),
        "Loads.dss": loads(tables["Load"], plan),
        "Capacitors.dss": capacitors(tables),
        "BusCoords.csv": bus_coordinates(tables["Bus"], plan),
        "reference.csv": reference_voltages(read_table(folder, "reference_node_voltages")),
        "reference_taps.csv": reference_taps(read_table(folder, "reference_taps")),
    }
    return {name: "\n".join(text) + "\n" for name, text in files.items()}


def main() -> None:
    """Write the feeder's files."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("tables", type=Path, help="folder of the tables")
    parser.add_argument("--target", type=Path, default=DEFAULT_TARGET, help="folder to write into")
    options = parser.parse_args()
    options.target.mkdir(parents=True, exist_ok=True)
    for name, text in make(options.tables).items():
        (options.target / name).write_text(text, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
