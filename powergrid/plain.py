"""Foreign data become plain, from YAML or from Python, and what pydantic finds wrong in them is told by its key.

What the keys mean it knows not.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import numpy as np
import yaml
from pydantic import BaseModel, ValidationError

from powergrid.errors import PowerGridError, ScenarioError, describe_unknown
from powergrid.files import decode_text, read_bytes, reason_of

Location = tuple[int | str, ...]

#: Most values and levels of what a user gives; aliases of YAML count as often as they stand for something.
MAX_VALUES, MAX_DEPTH = 1_000_000, 32
_MAX_FILE_BYTES = 64 * 1024**2
_MAX_BITS = 1024  # of a whole number: beyond, it is no float either
#: What PyYAML raises beside its own errors: of a date that is none, an unknown word, brackets without end.
_NO_YAML = (yaml.YAMLError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError)

#: What pydantic calls a part of a scenario.
_MAPPING = re.compile(r"a valid dictionary( or instance of \w+)?")


class Foreign:
    """Stand for a value that no key takes: a check refuses it by its name and place, and nothing calls its methods."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __repr__(self) -> str:
        return self._name


class _TooMuchError(Exception):
    """Say that data are deeper or more than any scenario's."""


def as_plain(data: Any, where: str) -> Any:
    """Return data as dicts, lists, text, numbers and paths, whatever kinds of mapping, list or number they came as.

    A DataFrame stays one, for profiles; what is none of these becomes a :class:`Foreign`, so that whoever checks the
    keys tells it beside all else that is wrong.

    Raises:
        ScenarioError: They hold themselves, or are too deep or too many.
    """
    try:
        return _Plain().take(data, 0)
    except _TooMuchError as error:
        raise ScenarioError(where, [str(error)]) from None


class _Plain:
    def __init__(self) -> None:
        self._count = 0

    def take(self, value: Any, depth: int) -> Any:
        """Return a value as plain data."""
        self._count += 1
        if self._count > MAX_VALUES:
            raise _TooMuchError(f"holds more than {MAX_VALUES:,} values; aliases count as often as they stand")
        if depth > MAX_DEPTH:
            raise _TooMuchError(f"is nested more than {MAX_DEPTH} levels deep, or holds itself")
        match value:
            case None | bool() | float() | Path() | Foreign():
                return value
            case str():
                return _as_text(value)
            case int():
                return value if value.bit_length() <= _MAX_BITS else Foreign(f"a number of {value.bit_length()} bits")
            case np.ndarray() | np.generic():
                return self._take_numpy(value, depth)
            case Mapping():
                return {self._key(key): self.take(each, depth + 1) for key, each in self._items(value)}
            case list() | tuple():
                taken = [self.take(each, depth + 1) for each in value]
                # A table stands for itself under a key; as one of several it is nothing, and compares to nothing.
                return [Foreign("a DataFrame") if type(each).__name__ == "DataFrame" else each for each in taken]
        return self._take_other(value, depth)

    def _take_other(self, value: Any, depth: int) -> Any:
        # A table is asked by name: pandas is imported where one is read. A part of a scenario was checked already.
        if type(value).__name__ == "DataFrame" or isinstance(value, BaseModel):
            return value
        if isinstance(value, Collection) and not isinstance(value, bytes | bytearray | memoryview | range):
            return self.take(list(value), depth)  # a set, a deque, the keys of a dict
        return Foreign(f"a {type(value).__name__}")

    def _take_numpy(self, value: Any, depth: int) -> Any:
        plain = value.tolist() if value.dtype.kind in "biufUOS" and value.size <= MAX_VALUES else None
        return Foreign(f"an array of {value.dtype}") if plain is None else self.take(plain, depth)

    def _items(self, mapping: Mapping[Any, Any]) -> list[tuple[Any, Any]]:
        try:
            return list(mapping.items())
        except Exception as error:  # noqa: BLE001 (a mapping of somebody's own)
            raise _TooMuchError(f"holds a {type(mapping).__name__} that cannot be read: {reason_of(error)}") from None

    def _key(self, key: Any) -> Any:
        if isinstance(key, str):
            return _as_text(key)
        return key if key is None or type(key) in (bool, int, float) else Foreign(f"a {type(key).__name__}")


def _as_text(text: str) -> Any:
    """Return a text that files and messages can hold."""
    if type(text) is not str:
        text = str.__str__(text)  # of numpy, or an enumeration's
    if "\0" in text or (not text.isprintable() and any("\ud800" <= each <= "\udfff" for each in text)):
        return Foreign(f"the text {ascii(text)[:40]}")
    return text


def read_yaml(file: Path) -> Any:
    """Return what a YAML file holds, as plain data: in UTF-8, in UTF-16, or in Windows-1252.

    Raises:
        ScenarioError: It cannot be read, is not YAML, or holds more than any scenario.
    """
    try:
        content = read_bytes(file, _MAX_FILE_BYTES)
    except PowerGridError as error:
        raise ScenarioError(str(file), [str(error).removeprefix(f"{file}: ")]) from None
    try:
        text = decode_text(content)
    except UnicodeDecodeError as error:
        raise ScenarioError(str(file), [f"is no text: {reason_of(error)}"]) from None
    return parse_yaml(text, str(file))


def parse_yaml(text: str, where: str) -> Any:
    """Return what YAML says, as plain data.

    Raises:
        ScenarioError: It is not YAML, or holds more than any scenario.
    """
    try:
        data = yaml.load(text, _Loader)  # a safe loader that minds repeated keys
    except _NO_YAML as error:
        deep = isinstance(error, RecursionError)
        raise ScenarioError(where, [f"is not YAML: {'nested too deeply' if deep else reason_of(error)}"]) from None
    return as_plain(data, where)


class _Loader(yaml.SafeLoader):
    """YAML in which a key that comes twice is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()  # PyYAML takes the last and says nothing of the others
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in seen:
                    problem = f"key {key.value!r} comes twice"
                    raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def merge(base: Any, change: Any) -> Any:
    """Return a value with a change: mappings are merged, everything else replaces."""
    if isinstance(base, Mapping) and isinstance(change, Mapping):
        return {**base, **{key: merge(base.get(key), value) for key, value in change.items()}}
    return change


def explain(
    error: ValidationError,
    data: Mapping[str, Any],
    allowed: Callable[[Location], Sequence[str]],
    kinds: Mapping[str, Sequence[str]] = {},
) -> list[tuple[Location, str]]:
    """Turn what pydantic found wrong in ``data`` into places and lines: the key, what came and what is allowed.

    Args:
        error: What it found.
        data: What was validated.
        allowed: Lists the keys that may stand at a place, as pydantic names places; see :func:`keys_at`.
        kinds: What ``kind`` may say, by the key that it stands below.
    """
    found: list[tuple[Location, str]] = []
    # Pydantic's own words tell neither what is allowed nor the nearest remedy, so most are ours.
    for entry in error.errors(include_url=False):
        came, missing = entry.get("input"), entry["type"] == "missing"
        location = _written(entry["loc"], data, missing=missing)
        where = location
        if entry["type"] == "extra_forbidden":
            where = location[:-1]
            lines = [describe_unknown("key", location[-1], allowed(entry["loc"][:-1]))]
        elif location[-1:] == ("[key]",):
            where, words = location[:-2], allowed(location[:-2])
            unknown = describe_unknown("key", came, words)
            lines = [unknown if words or isinstance(came, str) else f"name {came!r} is no text; write it in quotes"]
        elif missing:
            lines = ["is required"]
        elif entry["type"] == "too_short":
            if came and any(entry["loc"] == each["loc"][:-1] for each in error.errors()):
                continue  # pydantic counts those alone that are right, and has told of the others
            lines = [f"has {entry['ctx']['actual_length'] or 'none'}; give at least {entry['ctx']['min_length']}"]
        elif entry["type"] == "too_long":
            lines = [f"has {entry['ctx']['actual_length']}; give at most {entry['ctx']['max_length']}"]
        elif entry["type"] in ("union_tag_invalid", "union_tag_not_found"):
            kind = came.get("kind") if isinstance(came, Mapping) else None
            known = kinds.get(str(location[0]), ())
            unknown = describe_unknown("kind", kind, known)
            lines = [unknown if kind is not None else f"kind is required; one of {', '.join(known)}"]
        elif entry["type"] == "value_error":
            # What a validator of ours raised; one that finds several problems says each on a line.
            lines = str(entry["ctx"]["error"]).splitlines()
        else:
            shown = repr(came) if len(repr(came)) < 60 else f"{repr(came)[:57]}..."
            told = _MAPPING.sub("a mapping of keys to values", entry["msg"].replace("a valid tuple", "a list"))
            lines = [f"{told[0].lower()}{told[1:]}, not {shown}"]
        prefix = f"{'.'.join(map(str, where))}: " if where else ""
        found += [(location, prefix + line) for line in lines]
    return found


def keys_at(location: Location, model: Any) -> list[str]:
    """List the keys that may stand at a place below a model: its fields, or the words that a mapping's keys may be."""
    for part in location:
        fields = getattr(model, "model_fields", {})
        model = get_args(model)[1] if get_origin(model) is dict else fields[part].annotation if part in fields else None
        while get_origin(model) in (Union, UnionType, Annotated):
            model = next(each for each in get_args(model) if each is not type(None))
    if get_origin(model) is dict:
        words = get_args(model)[0]
        return list(get_args(words)) if get_origin(words) is Literal else []
    return list(getattr(model, "model_fields", {}))


def _written(location: Location, data: Any, *, missing: bool) -> Location:
    """Return the keys of a place as they were written."""
    # Pydantic puts the member of a union that it tried between the keys: devices.ess_1.storage.soc_min.
    kept: list[int | str] = []
    for i, part in enumerate(location):
        if part in _keys(data):
            data = data[part]
        elif part != "[key]" and not (missing and i == len(location) - 1):
            continue
        kept.append(part)
    return tuple(kept)


def _keys(data: Any) -> list[Any]:
    return list(data) if isinstance(data, Mapping) else list(range(len(data))) if isinstance(data, list | tuple) else []


def place_in(data: Any, location: Location) -> tuple[int, ...]:
    """Return where a location stands in the data, so that problems can be listed in reading order."""
    place: list[int] = []
    for part in location:
        keys = _keys(data)
        place.append(keys.index(part) if part in keys else len(keys))
        data = data[part] if part in keys else None
    return tuple(place)
