"""What compiling a feeder found out about it, kept by content: in this process, and on disk for the others.

Only the network description is kept: it is data, and comes back bit for bit. A circuit itself is built anew each
time, since what OpenDSS writes of one (``ToJSON``) leads to other bits. Nothing is unpickled; what cannot be read is
made again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from powergrid.grid.engine import engine_version
from powergrid.grid.engine.store import UNREADABLE, alone, made_by, open_entry, write_entry
from powergrid.grid.feeder.feeder import Feeder
from powergrid.grid.feeder.network import Branches, FeederControl, Loads, Network

_KIND = "network"
_MAX_IN_MEMORY = 32
_TABLES = {table.__name__: table for table in (Network, Branches, FeederControl, Loads)}

_in_memory: OrderedDict[str, Network] = OrderedDict()


def recall(feeder: Feeder) -> Network | None:
    """Return the description of a feeder that was compiled before, here or in another process, None where it was not.

    Its arrays are shared and cannot be written.
    """
    key = _key(feeder)
    if key is None:
        return None
    if key not in _in_memory:
        network = _read(key)
        if network is None:
            return None
        _remember(key, network)
    _in_memory.move_to_end(key)
    return _with_microgrids(feeder, _in_memory[key])


def keep(feeder: Feeder, network: Network) -> Network:
    """Keep a feeder's description, and give it back with arrays that cannot be written."""
    _freeze(network)
    key = _key(feeder)
    if key is not None:
        _remember(key, network)
        _write(key, network)
    return _with_microgrids(feeder, network)


def _with_microgrids(feeder: Feeder, network: Network) -> Network:
    """Add what the feeder itself says of its microgrids: that is not kept."""
    return dataclasses.replace(network, microgrids=feeder.microgrids) if feeder.microgrids else network


def describing_alone(feeder: Feeder) -> contextlib.AbstractContextManager[None]:
    """Let no other process describe the same feeder; see :func:`~powergrid.grid.engine.store.alone`."""
    key = _key(feeder)
    return contextlib.nullcontext() if key is None else alone(_KIND, key)


def forget() -> None:
    """Drop what this process remembers; the files stay."""
    _in_memory.clear()


def _remember(key: str, network: Network) -> None:
    _in_memory[key] = network
    while len(_in_memory) > _MAX_IN_MEMORY:
        _in_memory.popitem(last=False)


def _key(feeder: Feeder) -> str | None:
    """Return the hash of all that a description depends on, None for a feeder that is not of files."""
    if not feeder.digest:
        return None
    key = hashlib.sha256(f"{engine_version()}\n{made_by()}\n{feeder.digest}\n".encode())
    key.update("\n".join(command.text for command in feeder.commands).encode("utf-8", "surrogatepass"))
    key.update(feeder.circuit.encode("utf-8", "surrogatepass"))
    return key.hexdigest()


def _read(key: str) -> Network | None:
    with open_entry(_KIND, key) as entry:
        if entry is None:
            return None
        try:
            network = _decode(json.loads(entry[0]), entry[1])
        except UNREADABLE:
            return None
    if not isinstance(network, Network):
        return None
    _freeze(network)
    return network


def _write(key: str, network: Network) -> None:
    arrays: dict[str, npt.NDArray[Any]] = {}
    write_entry(_KIND, key, json.dumps(_encode(network, arrays)), arrays)


# -- a network as JSON and arrays


def _encode(value: Any, arrays: dict[str, npt.NDArray[Any]]) -> Any:
    """Turn a table into JSON that refers to arrays by name."""
    if isinstance(value, np.ndarray):
        name = f"a{len(arrays)}"
        arrays[name] = value
        return {"array": name}
    if dataclasses.is_dataclass(value):
        fields = {f.name: _encode(getattr(value, f.name), arrays) for f in dataclasses.fields(value)}
        return {"table": type(value).__name__, "fields": fields}
    if isinstance(value, tuple | list):
        if all(isinstance(item, str) for item in value):
            return {"names": list(value)}
        return {"tuple": [_encode(item, arrays) for item in value]}
    if isinstance(value, Mapping):
        return {"pairs": [[_encode(k, arrays), _encode(v, arrays)] for k, v in value.items()]}
    if value is None or isinstance(value, str | bool | int | float):
        return {"value": value}
    raise TypeError(f"a network holds a {type(value).__name__}, which the cache does not know")


def _decode(data: Any, arrays: Mapping[str, npt.NDArray[Any]]) -> Any:
    ((kind, content), *_) = data.items()
    if kind == "array":
        return arrays[content]
    if kind == "table":
        return _TABLES[content](**{name: _decode(entry, arrays) for name, entry in data["fields"].items()})
    if kind == "names":
        return tuple(content)
    if kind == "tuple":
        return tuple(_decode(item, arrays) for item in content)
    if kind == "pairs":
        return {_decode(k, arrays): _decode(v, arrays) for k, v in content}
    return content


def _freeze(value: Any) -> None:
    """Keep arrays that are shared from being written."""
    if isinstance(value, np.ndarray):
        value.setflags(write=False)
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            _freeze(getattr(value, field.name))
    elif isinstance(value, Mapping):
        for item in value.values():
            _freeze(item)
    elif isinstance(value, tuple) and not (value and isinstance(value[0], str)):
        for item in value:
            _freeze(item)
