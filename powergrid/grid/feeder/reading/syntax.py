"""OpenDSS's vocabulary: its commands, options and dangerous properties, and how it cuts a file into lines.

Knows text, not files: nothing in here reads a disk or starts a circuit.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from powergrid.errors import nearest_names, shorten
from powergrid.grid.engine import property_kinds, property_tables
from powergrid.grid.feeder.reading.members import lists_members
from powergrid.grid.feeder.reading.numbers import RARE_COUNTS
from powergrid.grid.feeder.reading.statements import expand

#: OpenDSS's commands in its own order: an abbreviation means the first that begins with it.
VERBS = tuple(
    """new edit more m ~ select save show solve enable disable plot reset compile set dump open close // redirect help
    quit ? next panel sample clear about calcvoltagebases setkvbase buildy get init export fileedit voltages currents
    powers seqvoltages seqcurrents seqpowers losses phaselosses cktlosses allocateloads formedit totals capacity classes
    userclasses zsc zsc10 zscrefresh ysc puvoltages varvalues varnames buscoords makebuslist makeposseq reduce
    interpolate alignfile top rotate vdiff summary distribute di_plot comparecases yearlycurves cd visualize closedi
    doscmd estimate reconductor _initsnap _solvenocontrol _samplecontrols _docontrolactions _showcontrolqueue
    _solvedirect _solvepflow addbusmarker uuids setloadandgenkv cvrtloadshapes nodediff rephase setbusxy updatestorage
    obfuscate latlongcoords batchedit pstcalc variable reprocessbuses clearbusmarkers relcalc var cleanup finishtimestep
    nodelist connect disconnect remove calcincmatrix calcincmatrix_o refine_buslevels calclaplacian exportoverloads
    exportvviolations zsc012 allpceatbus allpdeatbus totalpowers giscoords clearall comhelp newactor wait solveall abort
    clone""".split()  # noqa: SIM905
)
INCLUDES = ("redirect", "compile")
COORDINATES = ("buscoords", "latlongcoords")
CLEARING = ("clear", "clearall")
EDITING = ("new", "edit", "more", "m", "~", "batchedit")
#: What describes a circuit. All other commands are left out.
DESCRIBING = frozenset(
    (
        *(*EDITING, *COORDINATES, "select", "set", "enable", "disable", "open", "close", "setbusxy", "var"),
        *("calcvoltagebases", "setkvbase", "makebuslist", "setloadandgenkv", "allocateloads", "reprocessbuses"),
    )
)
#: What turns the circuit into another one: to leave it out would be to solve the wrong feeder.
REWRITING = frozenset(("makeposseq", "reduce", "reconductor", "remove"))
#: OpenDSS's options of ``set`` in its own order, abbreviated like the commands.
OPTIONS = tuple(
    """type element hour sec year frequency stepsize mode random number time class object circuit editor tolerance
    maxiterations h loadmodel loadmult normvminpu normvmaxpu emergvminpu emergvmaxpu %mean %stddev ldcurve %growth genkw
    genpf capkvar addtype allowduplicates zonelock ueweight lossweight ueregs lossregs voltagebases algorithm
    trapezoidal autobuslist controlmode tracecontrol genmult defaultdaily defaultyearly allocationfactors cktmodel
    pricesignal pricecurve terminal basefrequency harmonics maxcontroliter bus datapath keeplist reduceoption
    demandinterval %normal diverbose casename markercode nodewidth log recorder overloadreport voltexceptionreport
    cfactors showexport numallociterations defaultbasefrequency markswitches switchmarkercode daisysize
    marktransformers transmarkercode transmarkersize loadshapeclass earthmodel querylog markcapacitors markregulators
    markpvsystems markstorage capmarkercode regmarkercode pvmarkercode storemarkercode capmarkersize regmarkersize
    pvmarkersize storemarkersize neglectloady markfuses fusemarkercode fusemarkersize markreclosers reclosermarkercode
    reclosermarkersize registryupdate markrelays relaymarkercode relaymarkersize processtime totaltime steptime
    sampleenergymeters miniterations dssvisualizationtool keepload zmag seasonrating seasonsignal linetypes
    eventlogdefault longlinecorrection showreports numcpus numcores numactors activeactor cpu actorprogress parallel
    concatenatereports numanodes""".split()  # noqa: SIM905
)
#: Options that say which element is edited next: the reader follows them, the engine is told with each edit.
NAMING_OPTIONS = ("type", "class", "element", "object")
#: Options that look a shape up, which OpenDSS makes the active one of its class by that.
FINDING_OPTIONS = ("ldcurve", "defaultdaily", "defaultyearly", "pricecurve", "seasonsignal")
#: The options that describe a circuit; the others are about solving, files, windows and drawings.
DESCRIBING_OPTIONS = frozenset(
    """loadmodel loadmult genmult normvminpu normvmaxpu emergvminpu
    emergvmaxpu %normal %growth ldcurve voltagebases allowduplicates autobuslist allocationfactors cfactors
    numallociterations cktmodel basefrequency defaultbasefrequency earthmodel neglectloady longlinecorrection linetypes
    seasonrating seasonsignal defaultdaily defaultyearly pricesignal pricecurve loadshapeclass zonelock""".split()  # noqa: SIM905
)
#: What trust does not bring back: windows, editors, shells, other engines, and what ends the session or moves it.
NEVER_RUN = frozenset(
    (
        *("show", "plot", "visualize", "fileedit", "formedit", "panel", "help", "about", "comhelp", "top", "rotate"),
        *("di_plot", "comparecases", "yearlycurves", "classes", "userclasses", "quit", "doscmd", "cd", *CLEARING),
        *("newactor", "wait", "solveall", "abort", "clone", "connect", "disconnect"),
    )
)
#: Options of ``set`` of which the same is true; what ``datapath`` moves is followed.
NEVER_SET = frozenset(
    """editor datapath registryupdate dssvisualizationtool numcpus numcores numactors activeactor cpu actorprogress
    parallel concatenatereports""".split()  # noqa: SIM905
)
_LIBRARIES = frozenset(("usermodel", "shaftmodel", "dynadll"))
DATA_FILES = ("file", "csvfile", "dblfile", "sngfile", "pqcsvfile")
#: What may stand behind the file of an array.
FILE_OPTIONS = ("column", "header")
#: First letters of the actions of a class that write a file.
_WRITING_ACTIONS = {
    **dict.fromkeys(("loadshape", "tshape", "priceshape"), "ds"),
    **dict.fromkeys(("monitor", "energymeter"), "sz"),
}
#: What EPRI's engine takes under a name of its own (10.1): what it is called in this one, empty where it says nothing
#: of a power flow.
_OF_EPRI = {
    "recloser": {
        "phfastcurve": "phasefast", "phslowcurve": "phasedelayed", "gndfastcurve": "groundfast",
        "gndslowcurve": "grounddelayed", "phfastpickup": "phasetrip", "gndfastpickup": "groundtrip",
        "phinst": "phaseinst", "gndinst": "groundinst", "mechanicaldelay": "delay", "tdgndfast": "tdgrfast",
        "tdphslow": "tdphdelayed", "tdgndslow": "tdgrdelayed", "eventlog": "", "debugtrace": "", "ratedcurrent": "",
        "interruptingrating": "",
    },
    "fuse": {"interruptingrating": ""},
    "swtcontrol": {"ratedcurrent": ""},
    "sensor": {"action": ""},
}  # fmt: skip
_FUSE_PHASES = 6
_LINE_END = re.compile(r"\r\n|\n|\r")
_FIRST_WORD = re.compile(
    r"[ \t]*(?:\"([^\"]*)\"|'([^']*)'|\(([^)]*)\)|\[([^\]]*)\]|\{([^}]*)\}|([^ \t,=!]*))[ \t]*(=?)"
)

#: What a parameter does: names a data file, loads a program library, writes a file, makes another circuit, or leaves
#: values on the disk, where they cannot be read from the circuit.
Danger = Literal["file", "library", "writes", "rewrites", "maps"]


@functools.lru_cache(maxsize=1024)
def _read_verb(word: str) -> str:
    return expand(word, VERBS) or word.lower()


@dataclass(frozen=True)
class Command:
    """One line of a feeder: its text and where it stands."""

    file: Path
    line: int
    text: str

    @functools.cached_property
    def _first(self) -> tuple[str, bool]:
        """The first word, and whether ``=`` follows it."""
        found = _FIRST_WORD.match(self.text)
        return (
            ("", False) if found is None else (next((each for each in found.groups()[:6] if each), ""), bool(found[7]))
        )

    @functools.cached_property
    def verb(self) -> str:
        """The command in full, lower case, or its first word where OpenDSS has none like it."""
        return _read_verb(self._first[0])

    @property
    def assigns(self) -> bool:
        """Whether it is ``Class.name.property=value``, or ``property=value`` of the active element."""
        return self._first[1]

    @property
    def where(self) -> str:
        """``file:line``, as errors show it."""
        return f"{self.file}:{self.line}"


def find_danger(class_name: str, name: str, value: str) -> Danger | None:
    """Say what setting a property of a class does beside describing the element.

    Args:
        class_name, name: Class and full name of the property, lower case.
        value: What it is set to.
    """
    first = value.strip().lower()[:1]
    if property_tables().get(class_name, {}).get(name):
        return "library" if name in _LIBRARIES else "file"
    if name == "memorymapping":
        return "maps" if first in ("y", "t") else None
    if name == "debugtrace":  # a control with it writes a file of its own
        return "writes" if first in ("y", "t") else None
    if name == "action" and class_name in _WRITING_ACTIONS:
        if class_name == "energymeter" and first == "r":
            return "rewrites"
        return "writes" if first in _WRITING_ACTIONS[class_name] else None
    return None


@functools.lru_cache(maxsize=4096)
def only_describes(class_name: str, name: str) -> bool:
    """Whether no value of a property does anything but describe the element, and this engine knows it."""
    if name in ("memorymapping", "debugtrace", "action") or name in RARE_COUNTS or name in _OF_EPRI.get(class_name, ()):
        return False
    if lists_members(class_name, name):
        return False
    return property_tables().get(class_name, {}).get(name) is False


@functools.lru_cache(maxsize=4096)
def only_describe(class_name: str, names: tuple[str, ...]) -> bool:
    """Whether names are all properties of a class in full, of which none does anything but describe an element."""
    return all(only_describes(class_name, name) and property_kinds()[class_name][name] != "MakeLike" for name in names)


def find_equivalent(class_name: str, name: str, value: str) -> tuple[str, str] | None:
    """Return name and value in this engine of what EPRI's takes and this one does not, the name empty for nothing."""
    if (class_name, name) == ("fuse", "action"):
        # This engine writes behind the end of an array and dies; EPRI's opens or closes all phases.
        state = {"o": "open", "t": "open", "c": "closed"}.get(value.strip().lower()[:1])
        return ("state", " ".join([state] * _FUSE_PHASES)) if state else None
    own = _OF_EPRI.get(class_name, {}).get(name)
    return None if own is None else (own, value)


def find_unknown(commands: Iterable[Command], left_out: Iterable[Command]) -> Iterator[Command]:
    """Return the lines that are no command of OpenDSS's, those before the last ``clear`` left out."""
    unknown: list[Command] = []
    for command in left_out:
        if command.verb in CLEARING:
            unknown.clear()
        elif not (command.verb in VERBS or command.assigns):
            unknown.append(command)
    # What was taken out of a line that is run stands in left_out too: it begins with no command.
    run = {(command.file, command.line) for command in commands} if unknown else ()
    yield from (command for command in unknown if (command.file, command.line) not in run)


def describe_unknown_command(command: Command) -> str:
    """Say that a line is no command, with the command that was likely meant."""
    near = nearest_names(command.verb, VERBS)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    return f"{shorten(command.text)!r} is no command{hint}"


def decode(raw: bytes) -> str:
    """Read a file's text: UTF-16 by its mark, else UTF-8, else Windows-1252."""
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        return raw.decode("utf-16", "replace")
    for encoding in ("utf-8-sig", "cp1252"):
        try:
            return raw.decode(encoding)
        except UnicodeDecodeError:
            continue
    return raw.decode("latin-1")


def split(file: Path, text: str) -> Iterator[Command]:
    """Split a file into commands: no comments, no blank lines."""
    in_block = False
    # Not splitlines, which ends lines where OpenDSS does not. Ctrl-Z ended files once.
    for number, raw in enumerate(_LINE_END.split(text.removesuffix("\x1a")), start=1):
        line = raw.rstrip("\0 \t").lstrip(" \t")  # some programs fill lines up with zeros
        if in_block or line.startswith("/*"):
            in_block = "*/" not in line
            continue
        if line and not line.startswith(("!", "//")):
            yield Command(file, number, line)
