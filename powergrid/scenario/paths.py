"""Where a scenario's data and an ``env_config`` name files; it opens none."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

#: Takes what is written and which key it stands under, and gives what shall stand there.
Change = Callable[[str | Path, str], Any]


def map_paths(data: Mapping[str, Any], change: Change) -> dict[str, Any]:
    """Change every value of a scenario or an ``env_config`` that may name a file; nothing else, and not in place.

    Args:
        data: Its keys may be dotted, as in ``"profiles.source"``.
        change: Called with the value and its key: ``env_name`` or ``scenario``, ``feeder`` (also those of
            ``feeders`` and a placement's ``home``), ``microgrid``, ``model_root`` or ``profiles``.
    """
    return {key: _walk(value, tuple(str(key).split(".")), change) for key, value in data.items()}


def _walk(value: Any, at: tuple[str, ...], change: Change) -> Any:
    key = _key_of(at)
    if key == "feeders":
        if isinstance(value, Mapping):
            return {_changed(each, "feeder", change): weight for each, weight in value.items()}
        return [_changed(each, "feeder", change) for each in value] if isinstance(value, list | tuple) else value
    if key:
        if key == "scenario" and isinstance(value, Mapping):
            return map_paths(value, change)
        return _changed(value, key, change)
    if isinstance(value, Mapping) and at[0] in ("profiles", "placement", "microgrids"):
        return {name: _walk(part, (*at, *str(name).split(".")), change) for name, part in value.items()}
    return value


def _key_of(at: tuple[str, ...]) -> str:
    """Say what a value names by where it stands; empty where it names no file."""
    match at:
        case ("env_name" | "scenario" | "feeder" | "feeders" | "model_root" as key,):
            return key
        case ("profiles", "source"):
            return "profiles"
        case ("placement", "home"):
            return "feeder"
        case ("microgrids", _, "feeder"):
            return "microgrid"
    return ""


def _changed(value: Any, key: str, change: Change) -> Any:
    return change(value, key) if isinstance(value, str | Path) else value
