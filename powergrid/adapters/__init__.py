"""Faces for libraries that need one of their own; each module needs its library, and nothing else imports it.

``powergrid.adapters.sb3`` needs Stable-Baselines3, ``powergrid.adapters.torchrl`` TorchRL, and so on:
``pip install "powergrid-dss[learners]"``. What works with Gymnasium, PettingZoo or RLlib needs none. Here is what
they have in common: a policy that one of them has saved.
"""

from __future__ import annotations

import copy
import hashlib
import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from powergrid.envs.core import GridTask
from powergrid.errors import PowerGridError, ScenarioError
from powergrid.files import path_of

#: The module that loads a file, which is its extra too, and the class, by the ending of the file's name.
_LOADERS = {".zip": ("sb3", "Sb3Policy"), **dict.fromkeys((".pt", ".pth"), ("torchrl", "TorchPolicy"))}


class FilePolicy:
    """A policy of another library, from its file; it goes to other processes as the file's name.

    Args:
        file: The file.

    Attributes:
        name: What errors call it.
        view: Whether it decides for ``agents`` by name, or as one ``central`` controller.
        remembers: Whether it goes by what it saw before.
        masked: Whether it is told which positions can be had.
    """

    view = "central"
    remembers = False
    masked = False

    def __init__(self, file: Path) -> None:
        self.name, self._file = file.name, file
        self._digest = hashlib.sha256(file.read_bytes()).hexdigest()

    def fit(self, task: GridTask, width: Any) -> Sequence[str]:
        """Get ready for a task, and say what in it does not fit.

        Args:
            task: The task.
            width: How many numbers one controller sees, or each agent by name; None where it is what the task shows.
        """
        raise NotImplementedError

    def act(self, observations: Any, masks: Any = None) -> Any:
        """Return what it does without exploration: actions by agent, or those of one controller.

        Args:
            observations: What each agent sees, by name, or the controller.
            masks: Which positions can be had, alike, where it is ``masked``.
        """
        raise NotImplementedError

    def reset(self, task: GridTask, env: int) -> None:
        """Have it forget what it saw."""

    def __copy__(self) -> FilePolicy:
        own = object.__new__(type(self))
        own.__dict__.update(self.__dict__)
        return own

    def __deepcopy__(self, memo: dict[int, Any]) -> FilePolicy:
        return copy.copy(self)  # networks are only read

    def __reduce__(self) -> tuple[Any, ...]:
        return _load, (self._file,), {"_digest": self._digest}


def require_free(overrides: Mapping[str, Any], face: str, taken: Sequence[str]) -> None:
    """Refuse what a face decides by itself.

    Raises:
        ScenarioError: ``overrides`` name any of ``taken``; all of them.
    """
    if given := [name for name in taken if name in overrides]:
        raise ScenarioError(face, [f"{name}: the library asks for one alone; leave it out" for name in given])


def is_policy_file(name: str) -> bool:
    """Whether a name is that of a file which :func:`load_policy_file` may know, or says is not there."""
    return path_of(name).suffix in _LOADERS and not path_of(name).is_dir()


def load_policy_file(file: str | Path, *, trust: bool = False) -> FilePolicy:
    """Load a policy that Stable-Baselines3 or TorchRL has saved, for :func:`powergrid.evaluation.evaluate`.

    Args:
        file: What ``model.save`` of Stable-Baselines3 or sb3-contrib wrote (``.zip``), or ``torch.save`` of a module
            that reads and writes tensordicts as ``TorchGridEnv`` has them (``.pt``, ``.pth``).
        trust: Run the code in the file: both are pickles, which may do anything.

    Raises:
        PowerGridError: It is not trusted, is no such file, or its library is missing.
    """
    path = path_of(file)
    if not path.is_file():
        raise PowerGridError(f"{path}: there is no such file")
    if path.suffix not in _LOADERS:
        raise PowerGridError(f"{path}: its name ends with none of {', '.join(_LOADERS)}")
    if not trust:
        raise PowerGridError(
            f"{path}: to load it is to run the code in it: where you trust whoever made it, give --trust-checkpoint, "
            "or load_policy_file(file, trust=True)"
        )
    return _load(path)


def _load(path: Path) -> FilePolicy:
    extra, kind = _LOADERS[path.suffix]
    try:
        found: FilePolicy = getattr(importlib.import_module(f"powergrid.adapters.{extra}"), kind)(path)
    except ModuleNotFoundError as error:
        remedy = f'pip install "powergrid-dss[{extra}]", and what else it was made with'
        raise PowerGridError(f"{path}: needs {error.name}, which is not installed: {remedy}") from None
    return found
