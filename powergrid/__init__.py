"""PowerGrid: multi-agent reinforcement learning on OpenDSS feeders.

Importing it is light: engine, Ray and Torch are loaded when something needs them.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from powergrid.errors import (
    ActionError,
    ConvergenceError,
    EngineError,
    FeederError,
    PowerGridError,
    ScenarioError,
    describe_unknown,
)
from powergrid.garbage import put_off_collection

if TYPE_CHECKING:
    from powergrid.envs.agents import ActionForm
    from powergrid.envs.backends import BackendName
    from powergrid.envs.central import CentralGridEnv, CentralVectorEnv
    from powergrid.envs.parallel import ParallelGridEnv
    from powergrid.envs.vector import GridVectorEnv
    from powergrid.grid.feeder.feeder import list_feeders
    from powergrid.scenario import Scenario, list_scenarios, load_scenario
    from powergrid.training.policies.inference import load_policy

__version__ = "0.1.0"

__all__ = [
    "ActionError",
    "ConvergenceError",
    "EngineError",
    "FeederError",
    "PowerGridError",
    "ScenarioError",
    "__version__",
    "list_feeders",
    "list_scenarios",
    "load_policy",
    "load_scenario",
    "make",
    "make_central",
    "make_vector",
]

_LATER = {
    "list_feeders": "grid.feeder.feeder",
    "load_policy": "training.policies.inference",
    **dict.fromkeys(("list_scenarios", "load_scenario"), "scenario"),
}


def __getattr__(name: str) -> Any:
    # When first asked for: --version and --help shall not wait for the engine.
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_LATER[name]}"), name)


def _take_common(overrides: dict[str, Any]) -> None:
    # What libraries ask of any environment, and at a TypeError make it without: Stable-Baselines3 pictures; TorchRL,
    # which reads the words, steps to be skipped.
    if (mode := overrides.pop("render_mode", None)) is not None:
        raise TypeError(f"render_mode is {mode!r}; allowed is None: environments draw nothing, 'powergrid replay' does")
    if "frameskip" in overrides:
        raise TypeError("unexpected keyword argument 'frameskip': a step takes step_minutes of the scenario")


@put_off_collection()
def make(scenario: str | Path | Mapping[str, Any] | Scenario, **overrides: Any) -> ParallelGridEnv:
    """Build an environment with PettingZoo's parallel API.

    Args:
        scenario: Name of a shipped scenario, path of a YAML file, the data itself, or a scenario.
        overrides: Scenario fields to change, for example ``split="test"``.

    Raises:
        ScenarioError: with every problem of the settings.
        FeederError: the feeder does not compile or solve.
    """
    from powergrid.envs.parallel import ParallelGridEnv
    from powergrid.scenario import load_scenario

    _take_common(overrides)
    return ParallelGridEnv(load_scenario(scenario, overrides))


def make_central(
    scenario: str | Path | Mapping[str, Any] | Scenario,
    *,
    actions: ActionForm = "auto",
    levels: int = 33,
    battery: Literal["discrete", "continuous"] | None = None,
    **overrides: Any,
) -> CentralGridEnv:
    """Build a single-agent Gymnasium environment: one controller for all the scenario's agents.

    Args:
        scenario: Name of a shipped scenario, path of a YAML file, the data itself, or a scenario.
        actions: Form of the action space: ``mixed`` as the devices are, ``multidiscrete``, ``box``, or ``auto``.
        levels: Number of values of a continuous action in the form ``multidiscrete``, and of a battery's power where
            ``battery`` makes it discrete.
        battery: Gives every storage device ``levels`` (``discrete``) or none (``continuous``); None leaves them as
            the scenario has them. It is short for ``{"devices.<name>.levels": ...}`` in ``overrides``.
        overrides: Scenario fields to change, for example ``split="test"``.

    Raises:
        ScenarioError: with every problem of the settings.
        FeederError: the feeder does not compile or solve.
    """
    from powergrid.envs.central import CentralGridEnv, set_battery_levels
    from powergrid.scenario import load_scenario

    _take_common(overrides)
    found = load_scenario(scenario, overrides)
    return CentralGridEnv(set_battery_levels(found, battery, levels), actions, levels)


@overload
def make_vector(
    scenario: str | Path | Mapping[str, Any] | Scenario,
    num_envs: int,
    *,
    view: Literal["agents"] = "agents",
    backend: BackendName = "inline",
    workers: int | None = None,
    **overrides: Any,
) -> GridVectorEnv: ...


@overload
def make_vector(
    scenario: str | Path | Mapping[str, Any] | Scenario,
    num_envs: int,
    *,
    view: Literal["central"],
    backend: BackendName = "inline",
    workers: int | None = None,
    **overrides: Any,
) -> CentralVectorEnv: ...


def make_vector(
    scenario: str | Path | Mapping[str, Any] | Scenario,
    num_envs: int,
    *,
    view: Literal["agents", "central"] = "agents",
    backend: BackendName = "inline",
    workers: int | None = None,
    **overrides: Any,
) -> GridVectorEnv | CentralVectorEnv:
    """Build many environments of a scenario that are stepped in lockstep.

    Args:
        scenario: Name of a shipped scenario, path of a YAML file, the data itself, or a scenario.
        num_envs: Number of environments.
        view: ``agents`` for an array for each agent, ``central`` for Gymnasium's ``VectorEnv`` with one controller.
        backend: Where they are played: ``inline`` or ``processes``; both play the same.
        workers: Number of processes; None takes one for each processor.
        overrides: Scenario fields to change, for example ``split="test"``; and what the class of the view takes.

    Raises:
        ScenarioError: with every problem of the settings.
        FeederError: the feeder does not compile or solve.
    """
    from powergrid.envs import CentralVectorEnv, GridVectorEnv
    from powergrid.scenario import load_scenario

    _take_common(overrides)
    kinds: dict[str, Any] = {"agents": GridVectorEnv, "central": CentralVectorEnv}
    if view not in kinds:
        raise ScenarioError("make_vector", [f"view: {describe_unknown('view', view, kinds)}"])
    names = {"agents": ("worker_index",), "central": ("actions", "levels")}[view] + ("autoreset_mode", "timeout_s")
    own = {name: overrides.pop(name) for name in names if name in overrides}
    kind: type[GridVectorEnv] | type[CentralVectorEnv] = kinds[view]
    return kind(load_scenario(scenario, overrides), num_envs, backend=backend, workers=workers, **own)
