"""Broken and hostile feeders, each with what is to be said of it. All are made up; lines are counted from 1."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

#: Line 4 is the case's own.
AROUND = """New Circuit.tiny basekv=12.47 pu=1.0 R1=0.01 X1=0.1
New Line.l1 bus1=sourcebus bus2=b length=1 units=km R1=0.3 X1=0.4 normamps=100
New Load.a bus1=b kV=12.47 kW=200 kvar=100
{}
Set VoltageBases=[12.47]
CalcVoltageBases
"""


@dataclass(frozen=True)
class Broken:
    """A feeder that is not as it should be.

    Attributes:
        text: Line 4 of an otherwise sound master file, or the whole of one.
        code: The finding that must be there.
        words: What its message says.
        place: The file and line that it names; by default those of the case's own line.
        refused: Words of the error that an environment raises, empty where the feeder can be used nevertheless.
        whole: Whether ``text`` is the whole master file.
        files: Other files beside the master.
        links: Links beside the master, to where they lead.
    """

    text: str | bytes
    code: str
    words: str
    place: tuple[str, int] = ("Master.dss", 4)
    refused: str = ""
    whole: bool = False
    files: Mapping[str, str] = field(default_factory=dict)
    links: Mapping[str, str] = field(default_factory=dict)

    def write(self, folder: Path) -> Path:
        """Write the feeder to a folder and give its master file."""
        folder.mkdir(parents=True)
        master = folder / "Master.dss"
        if isinstance(self.text, bytes):
            master.write_bytes(self.text)
        else:
            master.write_text(self.text if self.whole else AROUND.format(self.text), encoding="utf-8")
        for name, content in self.files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(content, encoding="utf-8")
        for name, target in self.links.items():
            (folder / name).symlink_to(target)
        return master


_MASTER = ("Master.dss", 0)
_LOAD = "New Load.q bus1=b kV=12.47 kW=10"
_SECRET = {"../../secret.dss": "New Load.secret bus1=b kV=12.47 kW=10"}
_NO_BASES = AROUND.replace("Set VoltageBases=[12.47]\nCalcVoltageBases\n", "")

BROKEN: dict[str, Broken] = {
    # -- files
    "missing_redirect": Broken(
        "Redirect Lods.dss", "missing-file", "did you mean 'Loads.dss'", refused="missing file",
        files={"Loads.dss": _LOAD},
    ),
    "redirect_in_another_case": Broken(
        "Redirect LOADS.DSS", "file-case", "Letter case matters", refused="Letter case", files={"Loads.dss": _LOAD}
    ),
    "redirect_in_a_circle": Broken(
        "Redirect a.dss", "redirect-circle", "in a circle", ("b.dss", 2), "in a circle",
        files={"a.dss": "Redirect b.dss", "b.dss": f"{_LOAD}\nRedirect a.dss"},
    ),
    "missing_coordinates": Broken("BusCoords xy.csv", "missing-file", "'xy.csv'", refused="xy.csv"),
    "missing_data_file": Broken(
        "New LoadShape.s npts=3 mult=(file=nofile.csv)", "missing-data-file", "nofile.csv", refused="nofile.csv"
    ),
    "missing_csv_file": Broken(
        "New LoadShape.s npts=3 csvfile=nofile.csv", "missing-data-file", "nofile.csv", refused="nofile.csv"
    ),
    "redirect_out_of_the_root": Broken(
        "Redirect ../../secret.dss", "outside-root", "secret.dss", refused="outside the model_root", files=_SECRET
    ),
    "absolute_redirect": Broken("Redirect /etc/hosts", "outside-root", "/etc/hosts", refused="outside the model_root"),
    "link_out_of_the_root": Broken(
        "Redirect loads.dss", "outside-root", "loads.dss", refused="outside the model_root",
        files=_SECRET, links={"loads.dss": "../../secret.dss"},
    ),
    "data_out_of_the_root": Broken(
        "New LoadShape.s npts=2 mult=(file=../../secret.dss)", "outside-root", "secret.dss",
        refused="outside the model_root", files=_SECRET,
    ),
    "empty": Broken("", "no-circuit", "not a master file", _MASTER, "not a master file", whole=True),
    "garbage": Broken(
        bytes(range(256)) * 40, "unreadable-file", "binary data", ("Master.dss", 1), "not a master file"
    ),
    "no_circuit": Broken(_LOAD, "no-circuit", "not a master file", _MASTER, "not a master file", whole=True),
    # -- commands
    "shell": Broken("doscmd touch harmed", "shell-command", "'doscmd touch harmed' is not run"),
    "shell_abbreviated": Broken("dosc touch harmed", "shell-command", "'dosc touch harmed' is not run"),
    "fileedit": Broken("fileedit Master.dss", "shell-command", "is not run"),
    "save": Broken("Save Circuit dir=harmed", "shell-command", "is not run"),
    "change_folder": Broken("cd nowhere", "shell-command", "'cd nowhere' is not run"),
    "show": Broken("Show Voltages LN Nodes", "left-out", "is not run"),
    "plot": Broken("Plot Circuit Power", "left-out", "is not run"),
    "export": Broken("Export Voltages harmed.csv", "left-out", "is not run"),
    "daily_mode": Broken("Set mode=daily number=8760", "left-out", "mode=daily"),
    "data_path": Broken("Set datapath=nowhere", "left-out", "datapath"),
    "editor": Broken("Set editor=/bin/touch", "left-out", "editor"),
    "query_log": Broken("Set querylog=yes log=yes", "left-out", "querylog"),
    "debug_trace": Broken(
        "New Generator.g bus1=b kV=12.47 kW=1 debugtrace=yes", "writing-property", "debugtrace=yes"
    ),
    "self_saving_shape": Broken(
        "New LoadShape.s npts=2 mult=(1 2) action=dblsave", "writing-property", "action=dblsave"
    ),
    "library": Broken(
        "New Generator.g bus1=b kv=12.47 kw=1 usermodel=evil.so", "program-library", "usermodel",
        refused="program library",
    ),
    "reduce": Broken("Reduce", "rewriting-command", "another circuit", refused="another circuit"),
    "positive_sequence": Broken("MakePosSeq", "rewriting-command", "another circuit", refused="another circuit"),
    "typing_error_in_a_command": Broken(
        "Nwe Load.q bus1=b kV=12.47 kW=10", "unknown-command", "did you mean 'new'?", refused="is no command"
    ),
    "elements_before_a_clear": Broken(
        f"{_LOAD}\nClear\n" + AROUND.format(""), "dropped-circuit", "4 commands before 'Clear'", ("Master.dss", 5)
    ),
    # -- names and values
    "duplicate_load": Broken(
        "New Load.a bus1=b kV=12.47 kW=300", "duplicate-name", "Master.dss:3", refused="Duplicate new element"
    ),
    "duplicate_load_allowed": Broken(
        "Set AllowDuplicates=yes\nNew Load.a bus1=b kV=12.47 kW=300", "duplicate-name", "'load.a' is defined",
        ("Master.dss", 5),
    ),
    "two_circuits": Broken("New Circuit.other basekv=4.16", "duplicate-name", "second circuit", refused="Duplicate"),
    "missing_line_code": Broken(
        "New Line.z bus1=b bus2=c linecode=zzz", "unknown-name", '"zzz" not found', refused="zzz"
    ),
    "edit_of_nothing": Broken("Edit Load.aa kW=3", "unknown-name", "did you mean 'load.a'"),
    "unknown_property": Broken("New Load.q bus1=b colour=red", "unknown-property", "colour", refused="colour"),
    "unknown_class": Broken("New Lod.q bus1=b", "unknown-property", '"Lod" not found', refused="Lod"),
    "value_that_is_no_number": Broken("New Load.q bus1=b kV=twelve", "bad-value", "twelve", refused="twelve"),
    "unbalanced_quotes": Broken('New Load.q bus1="b kV=12.47 kW=10', "unclear", "never closed", refused="never closed"),
    "unbalanced_parentheses": Broken(
        "New Load.q bus1=b kV=(12.47 kW=10", "unclear", "never closed", refused="never closed"
    ),
    "shape_of_hours_0_to_23": Broken(
        f"New LoadShape.s npts=24 interval=0 hour=[{' '.join(map(str, range(24)))}] mult=[{'1 ' * 24}]\n"
        f"{_LOAD} daily=s", "load-shape", "begins anew each 23 h",
    ),
    "data_with_a_heading": Broken(
        "New LoadShape.s npts=2 interval=12 mult=(file=s.csv)", "bad-value", "s.csv begins with 'mult'",
        refused="write (file=..., header=yes)", files={"s.csv": "mult\n0.5\n1\n"},
    ),
    "data_with_decimal_commas": Broken(
        "New LoadShape.s npts=3 interval=8 mult=(file=s.csv)", "bad-value", "s.csv holds decimal commas",
        refused="write points", files={"s.csv": "0,5\r\n1\r\n0,75\r\n"},
    ),
    "name_in_quotes_of_its_own": Broken(
        'New Line."Oak St" bus1=b bus2=c length=1', "unclear", 'quote class and name together, "Line.Oak ..."',
        refused="quote class and name",
    ),
    "reference_in_quotes_of_its_own": Broken(
        "New EnergyMeter.m element=line.'l 1'", "unclear", "'line.l ...'", refused="quote class and name"
    ),
    "second_equals": Broken("New Load.q bus1=b kV=12.47=7", "unclear", "second '='", refused="second '='"),
    "variable_of_itself": Broken(
        "var @a=@b @b=@a\nNew Load.q bus1=b kV=@a kW=10", "bad-value", "@b", ("Master.dss", 5), "inline math"
    ),
    "no_phases": Broken("New Load.q phases=0 bus1=b kV=12.47", "bad-value", "zero", refused="zero"),
    "negative_kv": Broken("New Load.q bus1=b kV=-12 kW=10", "bad-value", "negative", refused="negative"),
    "zero_kv": Broken("New Load.q bus1=b kV=0 kW=10", "zero-kv", "load.q has kV = 0", refused="no base voltage"),
    "nan": Broken("New Load.q bus1=b kV=12.47 kW=nan", "not-finite", "'nan' is no number", refused="no number"),
    "infinite_demand": Broken(
        "New Load.q bus1=b kV=12.47 kW=1e400", "not-finite", "'1e400' is no number", refused="no number"
    ),
    "infinite_impedance": Broken(
        "New LineCode.m nphases=1 rmatrix=(1) xmatrix=(1e400)\nNew Line.z phases=1 bus1=b.1 bus2=c.1 linecode=m",
        "not-finite", "'1e400' is no number", ("Master.dss", 4), "no number",
    ),
    "zero_length": Broken("New Line.z bus1=b bus2=c length=0", "impossible-element", '"z"', refused="Matrix Inversion"),
    "singular_matrix": Broken(
        "New LineCode.m nphases=1 rmatrix=(0) xmatrix=(0)\nNew Line.z phases=1 bus1=b.1 bus2=c.1 linecode=m",
        "impossible-element", "Matrix Inversion", ("Master.dss", 5), "Matrix Inversion",
    ),
    "geometry_without_wires": Broken(
        "New LineGeometry.g nconds=3 nphases=3\nNew Line.z bus1=b bus2=c geometry=g", "impossible-element", "WireData",
        ("Master.dss", 4), "WireData",
    ),
    "enormous_line_of_text": Broken(
        f"{_LOAD} ! {'x' * 1_000_000}\nNwe", "unknown-command", "'Nwe'", ("Master.dss", 5), refused="'Nwe' is no"
    ),
    # -- the circuit as a whole
    "no_base_voltages": Broken(_NO_BASES.format(_LOAD), "completed", "no VoltageBases", _MASTER, whole=True),
    "no_base_voltages_and_no_levels": Broken(
        _NO_BASES.format("New Isource.i bus1=b amps=10\nDisable Vsource.source"), "no-base-kv", "any bus", _MASTER,
        "no base voltage at sourcebus", whole=True,
    ),
    "monitor_twice": Broken("New Monitor.m element=Line.x mode=1\nNew Monitor.m element=Line.x", "left-out", "nobody"),
    "meter_of_what_is_not_there": Broken("New EnergyMeter.e element=Line.nosuch", "left-out", "nobody reads it"),
    "base_frequency_after_the_source": Broken(
        "Set DefaultBaseFrequency=50", "bad-value", "solved at 50 Hz and its source is of 60 Hz", refused="0 V"
    ),
    "coordinates_with_semicolons": Broken(
        "BusCoords xy.csv", "no-coordinates", "BusCoords gives no bus any", files={"xy.csv": "sourcebus;1;2\nb;3;4\n"}
    ),
    "dispatcher_of_what_is_not_there": Broken(
        "New Generator.gen1 bus1=b kV=12.47 kW=50\nNew GenDispatcher.d element=Line.l1 GenList=[generator.gen2]",
        "unknown-name", "unknown enabled Generator 'gen2'", ("Master.dss", 5),
        "unknown enabled Generator",
    ),
    "element_of_unset_memory": Broken(
        "New VSConverter.one phases=4 bus1=b.1.2.3.0 ndc=1 kvac=12.47 kvdc=10 kw=30 vscmode=fixed m=.5 rac=.1 xac=1",
        "impossible-element", "from memory that it never fills", refused="model it as a Generator",
    ),
    "wrong_base_kv": Broken("New Load.q bus1=b kV=4.16 kW=10", "base-kv", "kV 4.16 at bus 'b', where it is 12.47"),
    "transformer_without_kv": Broken(
        "New Transformer.t buses=(b c) kvas=(100 100)\nNew Load.q bus1=c kV=0.48 kW=1", "base-kv",
        "transformer.t has no kV",
    ),
    "capacitor_for_another_voltage": Broken(
        "New Capacitor.c bus1=b kV=4.16 kvar=50", "base-kv", "capacitor.c has kV 4.16"
    ),
    "load_at_a_missing_bus": Broken(
        "New Load.q bus1=sourcebuss kV=12.47 kW=10", "not-fed", "did you mean 'sourcebus'"
    ),
    "load_without_a_bus": Broken("New Load.q kV=12.47 kW=10", "no-bus", "load.q has no bus"),
    "load_on_a_phase_that_is_not_there": Broken(
        "New Line.z phases=1 bus1=b.1 bus2=c.1 length=1 normamps=9\nNew Load.q phases=1 bus1=c.2 kV=7.2 kW=1",
        "not-fed", "c.2, a phase", ("Master.dss", 5),
    ),
    "island": Broken(
        "New Line.z bus1=c bus2=d length=1 normamps=9\nNew Load.q bus1=d kV=12.47 kW=7", "not-fed",
        "load.q (7 kW) is at bus 'd'", ("Master.dss", 5),
    ),
    "island_behind_an_open_switch": Broken(
        "New Line.z bus1=b bus2=d switch=yes normamps=9\nOpen Line.z 1", "isolated-bus", "bus 'd'"
    ),
    "disabled_source": Broken(
        "Disable Vsource.source", "no-source", "nothing feeds", ("Master.dss", 1), "no enabled source"
    ),
    "no_convergence": Broken(
        "New Load.q bus1=b kV=12.47 kW=60000 vminpu=0.01 vlowpu=0.001", "no-convergence", "nominal demand",
        _MASTER, "does not converge",
    ),
    "overload_and_low_voltage": Broken(
        "New Load.q bus1=b kV=12.47 kW=20000", "overload", "line.l1 at", ("Master.dss", 2)
    ),
    "bank_that_hunts": Broken(
        "New Capacitor.c bus1=b kV=12.47 kvar=900\n"
        "New CapControl.k capacitor=c element=line.l1 type=kvar ptratio=1 ctratio=1 onsetting=50 offsetting=-300",
        "hunting", "capcontrol.k moves to and fro", ("Master.dss", 5),
    ),
    "line_without_a_rating": Broken("New Line.z bus1=b bus2=c length=1", "no-rating", "1 Line without NormAmps"),
    "transformer_without_a_rating": Broken(
        "New Transformer.t buses=(b c) kvs=(12.47 0.48)", "no-rating", "1 Transformer without kVA"
    ),
}  # fmt: skip

#: What takes DSS C-API 0.14.5 down: line 4 of a master file, the finding, the line that ran last, and what is said.
DEADLY: dict[str, tuple[str, str, int, str]] = {
    "node_below_ground": ("New Load.q bus1=b.-1.x kV=12.47 kW=10", "engine-crashed", 6, "'CalcVoltageBases'"),
    "too_many_phases": ("New Line.q phases=100000 bus1=b bus2=c", "engine-crashed", 4, "phases=100000"),
    "too_many_windings": ("New Transformer.t windings=100000000", "engine-crashed", 4, "windings=100000000"),
    "endless_matrix": ("New LineCode.z nphases=4000", "timed-out", 4, "busy after 8 s"),
}
