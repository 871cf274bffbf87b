"""Policies that are a user's own Python: a function or a class by ``module:name`` or ``file.py:name``.

To name one is to run it: the module is imported with all that it does, so only what one would run anyway is for naming.
"""

from __future__ import annotations

import copy
import hashlib
import importlib
import importlib.util
import inspect
from pathlib import Path
from typing import Any, Literal

from powergrid.errors import ScenarioError, describe_unknown


class CallablePolicy:
    """Let a function or an object of a user's own play.

    Args:
        name: What errors call it.
        acts: Returns actions, given observations: of all agents by name, or one vector where the view is central.
        view: ``agents`` or ``central``.
        source: Digest of the file that it is of, where :func:`load_callable` finds it there by its name.
    """

    def __init__(
        self, name: str, acts: Any, view: Literal["agents", "central"] = "agents", source: str | None = None
    ) -> None:
        self.name, self._acts, self.view, self._source = name, acts, view, source
        self.remembers = hasattr(acts, "reset")

    def __deepcopy__(self, memo: dict[int, Any]) -> CallablePolicy:
        return CallablePolicy(self.name, copy.deepcopy(self._acts, memo), self.view, self._source)

    def __copy__(self) -> CallablePolicy:
        return CallablePolicy(self.name, self._acts, self.view, self._source)

    def __reduce__(self) -> tuple[Any, ...]:
        if self._source is None:
            return CallablePolicy, (self.name, self._acts, self.view)
        # a module of a file is in no other process; what it was is told beside
        return load_callable, (self.name, self.view), {"_source": self._source}

    def reset(self, task: Any, env: int) -> None:
        """Have it forget; it is given the task and which of its environments starts an episode."""
        if self.remembers:
            self._acts.reset({"day": int(task.simulation.day[env]), "agents": [agent.name for agent in task.agents]})

    def act(self, observations: Any) -> Any:
        """Return what it does."""
        return getattr(self._acts, "act", self._acts)(observations)


def is_callable_reference(text: str) -> bool:
    """Whether a text names a policy of a user's own."""
    where, colon, name = text.rpartition(":")
    return bool(colon) and name.isidentifier() and (where.endswith(".py") or where.replace(".", "").isidentifier())


def load_callable(reference: str, view: Literal["agents", "central"] = "agents") -> CallablePolicy:
    """Import a policy of a user's own; a class is made without arguments.

    Args:
        reference: ``module:name`` or ``file.py:name``.
        view: ``agents``: it is given observations by agent and returns actions by agent. ``central``: one vector of all
            channels, and one action as ``powergrid.make_central`` takes it.

    Raises:
        ScenarioError: the module is missing or fails, it lacks the name, or that is nothing that can act.
    """
    where, _, name = reference.rpartition(":")
    try:
        if where.endswith(".py"):
            path = Path(where).expanduser()
            if not path.is_file():
                raise ScenarioError(reference, [f"there is no file {where}"])
            spec = importlib.util.spec_from_file_location(f"powergrid_policy_{path.stem}", path)
            assert spec is not None
            assert spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
        else:
            module = importlib.import_module(where)
    except ScenarioError:
        raise
    except ModuleNotFoundError as error:
        remedy = "give a file as path.py:name, or install it"
        raise ScenarioError(reference, [f"module {error.name!r} is missing; {remedy}"]) from None
    except Exception as error:
        raise ScenarioError(reference, [f"importing it fails: {type(error).__name__}: {error}"]) from error
    if not hasattr(module, name):
        public = [each for each in vars(module) if not each.startswith("_") and callable(getattr(module, each))]
        raise ScenarioError(reference, [describe_unknown("function or class", name, public)])
    acts = getattr(module, name)
    if isinstance(acts, type):
        try:
            inspect.signature(acts).bind()
        except (TypeError, ValueError) as error:
            raise ScenarioError(reference, [f"{name} is made without arguments here: {error}"]) from None
        acts = acts()
    if not callable(getattr(acts, "act", acts)):
        raise ScenarioError(reference, [f"{name} is a {type(acts).__name__}, with neither act() nor a call"])
    source = hashlib.sha256(Path(module.__file__).read_bytes()).hexdigest() if module.__file__ else ""
    return CallablePolicy(reference, acts, view, source)
