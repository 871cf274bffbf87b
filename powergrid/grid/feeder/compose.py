"""Several feeders become one circuit: a host, and microgrids that are tied to its buses.

Works on the circuits as the engine's own data, not on text. Says nothing about when a tie is open.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from powergrid.errors import FeederError, Problem, describe_unknown
from powergrid.grid.feeder.circuit_data import (
    Part,
    bus_name,
    cut_off_source,
    names_of,
    place_beside,
    read_part,
    remove,
    rename,
    spell_out_lists,
)
from powergrid.grid.feeder.feeder import Feeder, read_feeder
from powergrid.grid.feeder.microgrid import (
    Data,
    LineTie,
    Microgrid,
    MicrogridSpec,
    describe_forming_source,
    describe_tie,
)

#: Classes that are more than wires: to leave one out would be to model another microgrid.
_CUSTOMERS = ("Load", "Generator", "Storage", "PVSystem", "IndMach012", "VSConverter", "VCCS", "UPFC")
_KV_TOLERANCE = 0.01  # of bases that are written with rounding (2.4 and 4.16/sqrt(3) kV)


def compose(
    host: Feeder, microgrids: Mapping[str, MicrogridSpec], read: Callable[[str], Feeder] = read_feeder
) -> Feeder:
    """Return a host feeder with microgrids tied to it, as one feeder.

    A microgrid's buses and elements get its name in lower case as a prefix (``mg1_671``, ``Load.mg1_671``), and its
    sources are left out, like energy meters and monitors. All else is exact. What ties microgrid ``MG1`` is
    ``Line.mg1_tie`` (the switch), for a transformer tie behind ``Transformer.mg1_tie`` at bus ``mg1_tie``; its
    forming source is ``Vsource.mg1_forming``, open as compiled.

    Args:
        host: The host feeder.
        microgrids: What is tied to it, by name.
        read: Reads the feeder that a spec names.

    Raises:
        FeederError: a feeder is wrong in itself, or they do not fit each other; all of it at once.
    """
    feeders = {name: read(spec.feeder) for name, spec in microgrids.items()}
    key = json.dumps({name: spec.model_dump(mode="json", exclude={"feeder"}) for name, spec in microgrids.items()})
    sha = hashlib.sha256(key.encode())
    for feeder in (host, *feeders.values()):
        sha.update(feeder.digest.encode())
    return _build(_Composition(host, feeders, dict(microgrids), sha.hexdigest()))


# To compose compiles every feeder once: each environment of the same scenario would do so again.
@functools.lru_cache(maxsize=16)
def _build(composition: _Composition) -> Feeder:
    return composition.build()


@dataclass(frozen=True, eq=False)
class _Composition:
    """Feeders and how they are tied; equal where all that is equal."""

    host: Feeder
    feeders: dict[str, Feeder]
    specs: dict[str, MicrogridSpec]
    digest: str

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Composition) and (self.digest, self.host.master) == (other.digest, other.host.master)

    def __hash__(self) -> int:
        return hash(self.digest)

    def build(self) -> Feeder:
        """Put the feeders together."""
        whole = read_part(f"feeder {self.host.name!r}", self.host, 1.0)
        problems = list(_find_name_problems(self.specs))
        problems += _find_duplicates(whole)
        spell_out_lists(whole.data)
        v_bases, microgrids = list(whole.v_bases_kv), list[Microgrid]()
        for name, spec in self.specs.items():
            part = read_part(
                f"microgrids.{name}: feeder {self.feeders[name].name!r}", self.feeders[name], spec.load_scale
            )
            found = [*_find_duplicates(part), *_find_option_problems(whole, part)]
            found += _find_tie_problems(name, spec, whole, part)
            problems += found or self._attach(whole, part, name, spec, microgrids)
            v_bases += [kv for kv in part.v_bases_kv if kv not in v_bases]
        if problems:
            raise FeederError(str(self.host.master), problems)
        return Feeder(
            name=" + ".join([self.host.name, *(f"{name} ({feeder.name})" for name, feeder in self.feeders.items())]),
            master=self.host.master,
            commands=(),
            left_out=tuple(c for feeder in (self.host, *self.feeders.values()) for c in feeder.left_out),
            digest=self.digest,
            circuit=json.dumps(_assemble(whole, v_bases)),
            microgrids=tuple(microgrids),
        )

    def _attach(
        self, whole: Part, part: Part, name: str, spec: MicrogridSpec, microgrids: list[Microgrid]
    ) -> list[Problem]:
        """Take a microgrid into the whole; give the problems, with any of which the whole is of no use."""
        prefix = f"{name.lower()}_"
        entry = _entry_of(spec, part)
        cut = cut_off_source(part, entry)
        lost = [f"{c}.{o['Name']}" for c in _CUSTOMERS for o in part.data.get(c, ()) if (c, o["Name"].lower()) in cut]
        if lost:
            shown = ", ".join(lost[:8]) + (f", ... ({len(lost)} in all)" if len(lost) > 8 else "")
            text = f"{entry!r} would leave out {shown}"
            return [Problem("entry-too-far", f"microgrids.{name}.entry", text, "name a bus nearer to the source")]
        remove(part, cut)
        spell_out_lists(part.data)
        data, opened = rename(part, prefix)
        place_beside(data["Bus"], prefix + entry, whole.data["Bus"], spec.bus)
        buses = tuple(bus["Name"].lower() for bus in data["Bus"])
        phases, bus = sorted(part.nodes[entry]), spec.bus.lower()
        kv = (whole.kv[bus], part.kv[entry])
        tie = describe_tie(spec.tie, f"{prefix}tie", (bus, prefix + entry), phases, kv)
        own_names = names_of(data)
        for class_name, element in tie.items():
            data.setdefault(class_name, []).append(element)
        if "Transformer" in tie:
            own = next(each for each in data["Bus"] if each["Name"].lower() == prefix + entry)
            data["Bus"].append({**own, "Name": f"{prefix}tie"})
        if spec.forming is not None:
            source = describe_forming_source(spec.forming, f"{prefix}forming", prefix + entry, phases, kv[1])
            data.setdefault("Vsource", []).append(source)
            opened.append(("Vsource", f"{prefix}forming", " 1"))
        problems = []
        clashing = [key for key in _names_of_tie(prefix, tie, spec) if key in own_names]
        if clashing:
            shown = ", ".join(f"{class_name}.{each.removeprefix(prefix)}" for class_name, each in clashing)
            text = f"{part.name} has {shown}, a name that is kept for its tie"
            problems.append(Problem("name-taken", "", text, "rename it in the feeder"))
        taken = names_of(whole.data) & names_of(data)
        if taken:
            shown = ", ".join(sorted(".".join(key) for key in taken)[:8])
            text = f"its names are taken already: {shown}"
            problems.append(Problem("name-taken", f"microgrids.{name}", text, "give it another name"))
        if problems:
            return problems
        for class_name, objects in data.items():
            whole.data.setdefault(class_name, []).extend(objects)
        whole.opened.extend(opened)
        former = f"{prefix}forming" if spec.forming is not None else ""
        microgrids.append(Microgrid(name, buses, prefix + entry, f"{prefix}tie", former, spec.forming))
        return []


# -- checks


def _entry_of(spec: MicrogridSpec, part: Part) -> str:
    return (spec.entry or bus_name(part.data["Vsource"][0]["Bus1"])).lower()


def _names_of_tie(prefix: str, tie: Mapping[str, Data], spec: MicrogridSpec) -> list[tuple[str, str]]:
    """Return class and name of all that tying a microgrid adds to it."""
    names = [(class_name, f"{prefix}tie") for class_name in tie]
    names += [("Bus", f"{prefix}tie")] if "Transformer" in tie else []
    return names + ([("Vsource", f"{prefix}forming")] if spec.forming is not None else [])


def _find_name_problems(names: Iterable[str]) -> Iterator[Problem]:
    seen: dict[str, str] = {}
    for name in names:
        if not re.fullmatch(r"[A-Za-z]\w*", name, re.ASCII):
            text = "a name is letters, digits and '_', a letter first: it becomes a prefix"
            yield Problem("bad-name", f"microgrids.{name}", text)
        if (other := seen.setdefault(name.lower(), name)) != name:
            yield Problem("bad-name", f"microgrids.{name}", f"differs from {other!r} in letter case only")


def _find_duplicates(part: Part) -> Iterator[Problem]:
    for class_name, objects in part.data.items():
        for name, count in Counter(o["Name"].lower() for o in objects).items():
            if count > 1:
                text = f"has {count} of {class_name}.{name}"
                yield Problem("duplicate-name", part.name, text, "elements need names of their own")


def _find_option_problems(host: Part, part: Part) -> Iterator[Problem]:
    for option, value in part.options.items():
        if value.lower() != host.options[option].lower():
            text = f"{part.name} has {option}={value}, {host.name} has {host.options[option]}"
            yield Problem("options-differ", "", text, "both need the same")


def _find_tie_problems(name: str, spec: MicrogridSpec, host: Part, part: Part) -> Iterator[Problem]:
    bus, entry, where = spec.bus.lower(), _entry_of(spec, part), f"microgrids.{name}"
    if entry not in part.nodes:
        yield Problem("unknown-bus", f"{where}.entry", describe_unknown("bus", spec.entry, part.nodes))
    if bus not in host.nodes:
        yield Problem("unknown-bus", f"{where}.bus", describe_unknown("bus", spec.bus, host.nodes))
        return
    if entry not in part.nodes:
        return
    missing = sorted(part.nodes[entry] - host.nodes[bus])
    if missing:
        text = f"{spec.bus!r} has phases {sorted(host.nodes[bus])}, not {missing} of the microgrid's {entry!r}"
        yield Problem("missing-phase", f"{where}.bus", text)
    here, there = host.kv[bus], part.kv[entry]
    if isinstance(spec.tie, LineTie) and abs(here - there) > _KV_TOLERANCE * here:
        levels = f"{here * 3**0.5:.4g} kV at {spec.bus!r} and {there * 3**0.5:.4g} kV at {entry!r}"
        remedy = "use 'kind: transformer', or another entry"
        yield Problem("levels-differ", f"{where}.tie", f"a line between {levels}", remedy)


# -- putting together


def _assemble(whole: Part, v_bases_kv: Iterable[float]) -> Data:
    """Return the circuit as the engine reads it."""
    options = {key: value for key, value in whole.options.items() if value and key != "defaultbasefrequency"}
    # Lines compute their impedances with the earth model while they are made.
    early = {key: options.pop(key) for key in ("earthmodel",)}
    controls = whole.data.get("CapControl", [])
    late = [(control["Name"], control.pop("VBus")) for control in controls if control.get("VBus")]
    bases = ", ".join(repr(kv) for kv in sorted(set(v_bases_kv), reverse=True))
    return {
        "Name": "powergrid",
        "DefaultBaseFreq": float(whole.options["defaultbasefrequency"]),
        "PreCommands": [*(f"Set {key}={value}" for key, value in early.items()), f"Set VoltageBases=[{bases}]"],
        **whole.data,
        "PostCommands": [
            *(f"Set {key}={value}" for key, value in options.items()),
            *(["MakeBusList"] if late else []),  # without which the engine knows no bus by name
            *(f'Edit "CapControl.{name}" VBus="{bus}"' for name, bus in late),
            *(f'Open "{class_name}.{name}"{places}' for class_name, name, places in whole.opened),
        ],
    }
