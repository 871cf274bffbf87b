"""A feeder on disk: find it, read its commands with file and line, leave out what does not describe a circuit.

Knows text, not electricity: nothing in here starts the engine.
"""

from __future__ import annotations

import hashlib
import importlib.resources
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from powergrid.errors import FeederError, describe_unknown, nearest_names
from powergrid.grid.microgrid import Microgrid

#: OpenDSS's commands in its own order: an abbreviation means the first that begins with it.
_VERBS = tuple(
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
_INCLUDES = ("redirect", "compile")
_COORDINATES = ("buscoords", "latlongcoords")
_CLEARING = ("clear", "clearall")
_EDITING = ("new", "edit", "more", "m", "~", "batchedit")
#: What describes a circuit. All other commands are left out.
_DESCRIBING = frozenset(
    (
        *(*_EDITING, *_COORDINATES, "select", "set", "enable", "disable", "open", "close", "setbusxy", "var"),
        *("calcvoltagebases", "setkvbase", "makebuslist", "setloadandgenkv", "allocateloads", "reprocessbuses"),
    )
)
#: What turns the circuit into another one: to leave it out would be to solve the wrong feeder.
_REWRITING = frozenset(("makeposseq", "reduce", "reconductor", "remove"))
#: OpenDSS's options of ``set`` in its own order, abbreviated like the commands.
_OPTIONS = tuple(
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
_DESCRIBING_OPTIONS = frozenset(
    """type element class object circuit bus terminal loadmodel loadmult genmult normvminpu normvmaxpu emergvminpu
    emergvmaxpu %normal %growth ldcurve voltagebases allowduplicates autobuslist allocationfactors cfactors
    numallociterations cktmodel basefrequency defaultbasefrequency earthmodel neglectloady longlinecorrection linetypes
    seasonrating seasonsignal defaultdaily defaultyearly loadshapeclass zonelock""".split()  # noqa: SIM905
)
_VALUE = r"""("[^"]*"|'[^']*'|\([^)]*\)|\[[^\]]*\]|\{[^}]*\}|[^\s,!"'(\[{]*)"""
#: Properties that write a file as they are read: traces, and shapes and meters that save themselves.
_WRITING_PROPERTY = re.compile(
    r"""\bdeb\w*\s*=\s*["'(\[{]?[yt]\w*["')\]}]?|\ba\w*\s*=\s*["'(\[{]?(?:dbl|sng)\w*["')\]}]?|\bact\w*\s*=\s*(?:s|z)\w*""",
    re.IGNORECASE,
)
#: Properties that load a program library.
_LIBRARY_PROPERTY = re.compile(r"\b(userm\w*|shaftm\w*|dynad\w*)\s*=\s*[^\s]", re.IGNORECASE)
_ASSIGNMENT = re.compile(r"[^\s=,]+\s*=")
_ENCODINGS = ("utf-8-sig", "cp1252")


@dataclass(frozen=True)
class Command:
    """One line of a feeder: its text and where it stands."""

    file: Path
    line: int
    text: str

    @property
    def verb(self) -> str:
        """The command in full, lower case, or its first word where OpenDSS has none like it."""
        word = re.split(r"[\s=,]", self.text.lstrip(), maxsplit=1)[0].lower()
        return _expand(word, _VERBS) or word

    @property
    def where(self) -> str:
        """``file:line``, as errors show it."""
        return f"{self.file}:{self.line}"


@dataclass(frozen=True)
class Feeder:
    """A feeder read from disk.

    Attributes:
        name: Short name: the folder of a shipped feeder, the file's stem of another.
        master: The master file.
        commands: What describes the circuit, in order, redirects already followed.
        left_out: What the files also say and is not run (Solve, Show, Export ...).
        digest: SHA-256 over all files read.
        circuit: The circuit as the engine's own data (JSON) where it was composed, else empty: then it is ``commands``.
        microgrids: What was tied to it, where it was composed.
    """

    name: str
    master: Path
    commands: tuple[Command, ...]
    left_out: tuple[Command, ...]
    digest: str
    circuit: str = ""
    microgrids: tuple[Microgrid, ...] = ()


def models_folder() -> Path:
    """Give the folder of the shipped feeders: inside an installed package, or beside it in a checkout."""
    package = Path(str(importlib.resources.files("powergrid")))
    installed = package / "dss_models"
    return installed if installed.is_dir() else package.parent / "dss_models"


def list_feeders() -> list[str]:
    """Name the shipped feeders."""
    return sorted(master.parent.name for master in models_folder().glob("*/Master.dss"))


def find_feeder(reference: str | Path) -> Path:
    """Turn a shipped feeder's name or a path into the path of its master file.

    Raises:
        FeederError: nothing is there; with the nearest shipped name or file name.
    """
    shipped = models_folder() / str(reference) / "Master.dss"
    if re.fullmatch(r"[\w-]+", str(reference)) and shipped.is_file():
        return shipped
    try:
        path = Path(reference).expanduser()
    except RuntimeError:
        raise FeederError(str(reference), ["nobody has a home folder of that name"]) from None
    if path.is_file():
        return path.absolute()
    if path.is_dir():
        masters = sorted(p.name for p in path.iterdir() if p.suffix.lower() == ".dss")
        raise FeederError(str(path), [f"is a folder; name its master file, one of: {', '.join(masters) or 'none'}"])
    if path.parent != Path() and path.parent.is_dir():
        names = [p.name for p in path.parent.iterdir() if p.suffix.lower() == ".dss"]
        raise FeederError(str(path), [describe_unknown("file", path.name, names)])
    raise FeederError(str(reference), [describe_unknown("feeder", reference, list_feeders()) + ", or a path to a .dss"])


def read_feeder(reference: str | Path) -> Feeder:
    """Read a feeder: the master file and all that it redirects to.

    Args:
        reference: Name of a shipped feeder (``"ieee13"``) or path of a master file.

    Raises:
        FeederError: a file is missing or unreadable; all of them, each with file and line.
    """
    master = find_feeder(reference)
    reader = _Reader()
    reader.read(master, ())
    if reader.problems:
        raise FeederError(str(master), reader.problems)
    if not any(re.match(r"\s*new\s+(object\s*=\s*)?\"?circuit\.", c.text, re.IGNORECASE) for c in reader.commands):
        raise FeederError(str(master), ["no 'New Circuit.<name>' in it: this is not a master file"])
    name = master.parent.name if master.name == "Master.dss" else master.stem
    return Feeder(name, master, tuple(reader.commands), tuple(reader.left_out), reader.hash.hexdigest())


class _Reader:
    """Walk a master file and its redirects, sorting commands."""

    def __init__(self) -> None:
        self.commands: list[Command] = []
        self.left_out: list[Command] = []
        self.problems: list[str] = []
        self.hash = hashlib.sha256()

    def read(self, file: Path, above: tuple[Path, ...]) -> None:
        above = (*above, file)
        try:
            raw = file.read_bytes()
        except OSError as error:
            self.problems.append(f"{file}: cannot be read: {error.strerror}")
            return
        self.hash.update(raw)
        for command in _commands(file, _decode(raw)):
            self._take(command, above)

    def _take(self, command: Command, above: tuple[Path, ...]) -> None:
        """Sort one command: run as written, run in part, left out, or a problem."""
        verb = command.verb
        if _ASSIGNMENT.match(command.text):  # Class.name.property=value, or a property of the active element
            self._take_edit(command)
        elif verb in _INCLUDES:
            self._include(command, above)
        elif verb in _CLEARING:
            self.left_out += [*self.commands, command]  # what came before is another circuit
            self.commands.clear()
        elif verb in _REWRITING:
            self.problems.append(
                f"{command.where}: {verb} makes another circuit of this one; run it in OpenDSS and save the result"
            )
        elif verb not in _DESCRIBING:
            self.left_out.append(command)
        elif verb == "set":
            self._take_options(command)
        elif verb in _EDITING:
            self._take_edit(command)
        elif verb not in _COORDINATES or self._require(command) is not None:
            self.commands.append(command)

    def _take_edit(self, command: Command) -> None:
        """Take an edit of an element without what would write a file, and refuse what would load a program."""
        library = _LIBRARY_PROPERTY.search(command.text)
        if library:
            self.problems.append(f"{command.where}: {library[1]} loads a program library, which is not allowed")
            return
        text = command.text
        for found in _WRITING_PROPERTY.finditer(command.text):
            text = text.replace(found[0], " ")
            self.left_out.append(replace(command, text=found[0].strip()))
        self.commands.append(replace(command, text=text))

    def _take_options(self, command: Command) -> None:
        """Take the options of a ``set`` that describe the circuit."""
        options = re.findall(rf"([%\w]+)\s*=\s*{_VALUE}", _uncomment(command.text))
        for describing, kept in ((True, self.commands), (False, self.left_out)):
            chosen = [
                (key, value) for key, value in options if (_expand(key, _OPTIONS) in _DESCRIBING_OPTIONS) is describing
            ]
            if len(chosen) == len(options) and (options or not describing):
                kept.append(command)
            elif chosen:
                kept.append(replace(command, text="set " + " ".join(f"{key}={value}" for key, value in chosen)))

    def _include(self, command: Command, above: tuple[Path, ...]) -> None:
        target = self._require(command)
        if target is None:
            return
        if target.resolve() in (file.resolve() for file in above):
            self.problems.append(f"{command.where}: {command.text.strip()!r} redirects in a circle")
            return
        self.read(target, above)

    def _require(self, command: Command) -> Path | None:
        """Resolve the file that a command names, or note the problem."""
        written = _argument(command.text)
        for folder in (command.file.parent, command.file.resolve().parent):  # the second where a file is a link
            target = folder / written.replace("\\", "/")
            if target.is_file():
                return target
        folder = target.parent
        names = [p.name for p in folder.iterdir()] if folder.is_dir() else []
        same = [n for n in names if n.lower() == target.name.lower()]
        near = same or nearest_names(target.name, names)
        remedy = f" (did you mean {near[0]!r}?{' Letter case matters here' if same else ''})" if near else ""
        self.problems.append(f"{command.where}: {command.verb} of a missing file {written!r}{remedy}")
        return None


def _decode(raw: bytes) -> str:
    for encoding in _ENCODINGS:
        try:
            return raw.decode(encoding)
        except UnicodeDecodeError:
            continue
    return raw.decode("latin-1")


def _commands(file: Path, text: str) -> Iterator[Command]:
    """Split a file into commands: no comments, no blank lines."""
    in_block = False
    for number, raw in enumerate(text.splitlines(), start=1):
        line = raw.strip()
        if in_block or line.startswith("/*"):
            in_block = "*/" not in line
            continue
        if line and not line.startswith(("!", "//")):
            yield Command(file, number, line)


def _argument(text: str) -> str:
    """Give the file name after a verb, without quotes or a trailing comment."""
    rest = text.strip().split(None, 1)
    written = rest[1].strip() if len(rest) > 1 else ""
    written = re.sub(r"^file\s*=\s*", "", written, flags=re.IGNORECASE)
    quoted = re.match(r"""^(["'])(.*?)\1|^\((.*?)\)|^\[(.*?)\]|^\{(.*?)\}""", written)
    if quoted:
        return next(group for group in quoted.groups()[1:] if group is not None)
    return re.split(r"\s*(?:!|//)|\s", written, maxsplit=1)[0]


def _expand(word: str, words: tuple[str, ...]) -> str:
    """Give the word that an abbreviation means, as OpenDSS reads it, empty where none."""
    word = word.lower()
    if word in words:
        return word
    return next((full for full in words if word and full.startswith(word)), "")


def _uncomment(text: str) -> str:
    return re.split(r"!|//", text, maxsplit=1)[0]
