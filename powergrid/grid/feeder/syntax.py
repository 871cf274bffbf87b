"""OpenDSS's vocabulary: its commands, options and dangerous properties, and how it cuts a line into parameters.

Knows text, not files: nothing in here reads a disk or starts a circuit.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from powergrid.errors import nearest_names
from powergrid.grid.engine import property_tables

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
#: The options that describe a circuit; the others are about solving, files, windows and drawings.
DESCRIBING_OPTIONS = frozenset(
    """type element class object circuit bus terminal loadmodel loadmult genmult normvminpu normvmaxpu emergvminpu
    emergvmaxpu %normal %growth ldcurve voltagebases allowduplicates autobuslist allocationfactors cfactors
    numallociterations cktmodel basefrequency defaultbasefrequency earthmodel neglectloady longlinecorrection linetypes
    seasonrating seasonsignal defaultdaily defaultyearly loadshapeclass zonelock""".split()  # noqa: SIM905
)
#: What trust does not bring back: windows, editors, shells, other engines, and what ends the session or moves it.
NEVER_RUN = frozenset(
    (
        *("show", "plot", "visualize", "fileedit", "formedit", "panel", "help", "about", "comhelp", "top", "rotate"),
        *("di_plot", "comparecases", "yearlycurves", "classes", "userclasses", "quit", "doscmd", "cd", *CLEARING),
        *("newactor", "wait", "solveall", "abort", "clone", "connect", "disconnect"),
    )
)
#: Options of ``set`` of which the same is true; ``datapath`` would move what relative names count from.
NEVER_SET = frozenset(
    """editor datapath registryupdate dssvisualizationtool numcpus numcores numactors activeactor cpu actorprogress
    parallel concatenatereports""".split()  # noqa: SIM905
)
_SHOWN = 72
_LIBRARIES = frozenset(("usermodel", "shaftmodel", "dynadll"))
_DATA_FILES = ("file", "csvfile", "dblfile", "sngfile", "pqcsvfile")
#: First letters of the actions of a class that write a file.
_WRITING_ACTIONS = {
    **dict.fromkeys(("loadshape", "tshape", "priceshape"), "ds"),
    **dict.fromkeys(("monitor", "energymeter"), "sz"),
}
_LIBRARY_NAMES = ("userm", "shaftm", "dynad")
_SAVES = ("dbl", "sng")
_QUOTES = {'"': '"', "'": "'", "(": ")", "[": "]", "{": "}"}
_TOKEN = r"""(?:"[^"]*"?|'[^']*'?|\([^)]*\)?|\[[^\]]*\]?|\{[^}]*\}?|(?:(?!//)[^\s,=!])+)"""
_READ_PARAMETER = re.compile(rf"({_TOKEN})(?:[^\S\n]*(=)[^\S\n]*({_TOKEN})?)?[^\S\n]*,?[^\S\n]*")
_ASSIGNMENT = re.compile(rf"{_TOKEN}\s*=")
#: What an array may begin with that is read from a file.
_FILE_OF_ARRAY = re.compile(rf"\s*({_TOKEN})\s*=\s*({_TOKEN})")
_MAY_NAME_A_FILE = re.compile(r"""["'(\[{]\s*["'(\[{]?\s*(?:[fds]\w*|csv\w*|pq\w*)\s*["')\]}]?\s*=""", re.IGNORECASE)

#: What a parameter does: names a data file, loads a program library, writes a file, makes another circuit, or leaves
#: values on the disk, where they cannot be read from the circuit.
Danger = Literal["file", "library", "writes", "rewrites", "maps"]


@dataclass(frozen=True)
class Command:
    """One line of a feeder: its text and where it stands."""

    file: Path
    line: int
    text: str

    @property
    def verb(self) -> str:
        """The command in full, lower case, or its first word where OpenDSS has none like it."""
        word = unquote(re.split(r"[\s=,]", self.text.lstrip(), maxsplit=1)[0]).lower()
        return expand(word, VERBS) or word

    @property
    def assigns(self) -> bool:
        """Whether it is ``Class.name.property=value``, or ``property=value`` of the active element."""
        return _ASSIGNMENT.match(self.text) is not None

    @property
    def where(self) -> str:
        """``file:line``, as errors show it."""
        return f"{self.file}:{self.line}"


class Parameter(NamedTuple):
    """One ``name=value`` or bare value of a command, without its quotes, and where it stands in the text.

    Attributes:
        name: Name as written, empty where there is none.
        start: First character of the name, or of the value where there is no name.
        value_start, end: First character of the value, its quote included, and the one behind it.
    """

    name: str
    value: str
    start: int
    value_start: int
    end: int


def after_verb(text: str) -> Iterator[Parameter]:
    """Cut what follows the first word of a command into parameters."""
    verb = re.match(r"[^\s=,]*\s*[=,]?", text)
    return parameters(text, verb.end() if verb else 0)


def parameters(text: str, start: int = 0) -> Iterator[Parameter]:
    """Cut a command into parameters as OpenDSS does: any of five quotes, commas, blanks, comments."""
    position = len(text) - len(text[start:].lstrip())
    while position < len(text):
        found = _READ_PARAMETER.match(text, position)
        if found is None:
            if text[position] not in ",=":  # a comment
                return
            yield Parameter("", "", position, position, position)
            position += 1 + len(text[position + 1 :]) - len(text[position + 1 :].lstrip())
            continue
        token, equals, value = found.groups()
        if equals:
            begin = found.start(3) if value is not None else found.end(2)
            yield Parameter(unquote(token), unquote(value or ""), position, begin, begin + len(value or ""))
        else:
            yield Parameter("", unquote(token), position, position, found.end(1))
        position = found.end()


def unquote(token: str) -> str:
    """Take a pair of quotes off, if there is one."""
    if token and token[0] in _QUOTES:
        return token[1:-1] if token.endswith(_QUOTES[token[0]]) and len(token) > 1 else token[1:]
    return token


def quote(text: str, openers: str = "\"'([{") -> str | None:
    """Put a text between quotes that it does not hold itself, None where it holds all of them."""
    for opener in openers:
        if _QUOTES[opener] not in text:
            return opener + text + _QUOTES[opener]
    return None


@functools.lru_cache(maxsize=4096)
def expand(word: str, words: tuple[str, ...]) -> str:
    """Return the word that an abbreviation means, as OpenDSS reads it, empty where none."""
    word = word.lower()
    if word in words:
        return word
    return next((full for full in words if word and full.startswith(word)), "")


def class_of(name: str) -> str:
    """Return the class in ``Class.name``, lower case; that of a circuit is its source's."""
    written = name.partition(".")[0].strip().lower()
    return "vsource" if written == "circuit" else written


@functools.cache
def _dangers() -> dict[str, dict[str, Danger]]:
    """Find the properties that reach outside the circuit: class to property to what it does."""
    found: dict[str, dict[str, Danger]] = {}
    for class_name, table in property_tables().items():
        own: dict[str, Danger] = {}
        for name, is_file in table.items():
            if is_file:
                own[name] = "library" if name in _LIBRARIES else "file"
            elif name == "memorymapping":
                own[name] = "maps"
            # A control with debugtrace writes a file of its own.
            elif name == "debugtrace" or (name == "action" and class_name in _WRITING_ACTIONS):
                own[name] = "writes"
        if own:
            found[class_name] = own
    return found


@functools.cache
def _names(class_name: str) -> tuple[str, ...]:
    return tuple(property_tables()[class_name])


def is_plain(text: str, class_name: str | None) -> bool:
    """Whether an edit of a class can be passed on without looking at each parameter."""
    known = class_name in property_tables() and class_name not in _dangers()
    return known and "@" not in text and not _MAY_NAME_A_FILE.search(text)


def find_dangers(given: Iterable[Parameter], class_name: str | None) -> Iterator[tuple[Parameter, Danger]]:
    """Find the parameters of an edit that reach outside the circuit.

    Args:
        given: The parameters, after the element's name; variables replaced by their values.
        class_name: Class of the element, lower case; of an unknown one, what any class would make of it is told.
    """
    classes = [class_name] if class_name is not None and class_name in property_tables() else list(_dangers())
    place = dict.fromkeys(classes, 0)
    for parameter in given:
        found: Danger | None = "file" if file_of_array(parameter.value) else None
        for name in classes:
            names = _names(name)
            if parameter.name:
                # Any beginning of a property's name means the first that begins so.
                full = expand(parameter.name, names)
            else:
                # A bare value is of the property behind the one that was set last.
                full = names[place[name]] if place[name] < len(names) else ""
            place[name] = names.index(full) + 1 if full else place[name] + (not parameter.name)
            danger = _dangers().get(name, {}).get(full)
            if danger == "maps" and parameter.value.strip().lower()[:1] not in ("y", "t"):
                danger = None
            if danger == "writes":
                danger = _writes(name, full, parameter.value)
            found = found or (danger if parameter.value.strip() else None)
        if found is None and parameter.name:  # what no property of the class says, but another's
            found = _by_name_alone(parameter)
        if found:
            yield parameter, found


def _by_name_alone(parameter: Parameter) -> Danger | None:
    if parameter.name.lower().startswith(_LIBRARY_NAMES):
        return "library"
    saves = expand(parameter.name, ("action",)) and parameter.value.lower().startswith(_SAVES)
    return "writes" if saves else None


def _writes(class_name: str, name: str, value: str) -> Danger | None:
    first = value.strip().lower()[:1]
    if name == "debugtrace":
        return "writes" if first and first in "yt" else None
    if class_name == "energymeter" and first == "r":
        return "rewrites"
    return "writes" if first and first in _WRITING_ACTIONS[class_name] else None


def find_unknown(commands: Iterable[Command], left_out: Iterable[Command]) -> Iterator[Command]:
    """Return the lines that are no command of OpenDSS's, those before the last ``clear`` left out."""
    # What was taken out of a line that is run stands in left_out too: it begins with no command.
    run = {(command.file, command.line) for command in commands}
    unknown: list[Command] = []
    for command in left_out:
        if command.verb in CLEARING:
            unknown.clear()
        elif not (command.verb in VERBS or command.assigns or (command.file, command.line) in run):
            unknown.append(command)
    yield from unknown


def describe_unknown_command(command: Command) -> str:
    """Say that a line is no command, with the command that was likely meant."""
    near = nearest_names(command.verb, VERBS)
    text = " ".join(command.text.split())
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    return f"{text if len(text) <= _SHOWN else text[: _SHOWN - 4] + ' ...'!r} is no command{hint}"


def set_apart(text: str) -> tuple[str, str]:
    """Cut ``kWs`` and ``kvars`` out of the line of a new sensor; return also one that sets them."""
    later: list[str] = []
    for parameter in reversed(list(after_verb(text))):
        if parameter.name and expand(parameter.name, _names("sensor")) in ("kws", "kvars"):
            later.insert(0, text[parameter.start : parameter.end])
            text = text[: parameter.start] + " " + text[parameter.end :]
    return text, f"~ {' '.join(later)}" if later else ""


def file_of_array(value: str) -> tuple[str, str, str] | None:
    """Take ``file=data.csv header=yes`` apart: how it is read, the file, and the rest; None where it is no such."""
    found = _FILE_OF_ARRAY.match(value)
    if found is None or not expand(unquote(found[1]).strip(), _DATA_FILES):
        return None
    return unquote(found[1]).strip().lower(), unquote(found[2]), value[found.end() :]


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
    for number, raw in enumerate(text.splitlines(), start=1):
        line = raw.strip()
        if in_block or line.startswith("/*"):
            in_block = "*/" not in line
            continue
        if line and not line.startswith(("!", "//")):
            yield Command(file, number, line)
