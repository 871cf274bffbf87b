"""BenchMARL's task on environments that are stepped in lockstep; what learns, and how, is BenchMARL's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarl.environments.common import TaskClass

from powergrid.adapters.torchrl import TorchGridEnv
from powergrid.scenario import Scenario, load_scenario

_TaskClass: Any = TaskClass  # published without types


class GridTaskClass(_TaskClass):  # type: ignore[misc]
    """Let BenchMARL train and evaluate on a scenario: ``Experiment(task=GridTaskClass("ieee13_mg"), ...)``.

    Agents are grouped as :class:`powergrid.adapters.torchrl.TorchGridEnv` groups them. Its own evaluations play
    the days that it trains on.

    Args:
        scenario: Name of a shipped scenario, path of a YAML file, the data itself, or a scenario.
        overrides: What else ``TorchGridEnv`` takes: scenario fields to change, ``groups``, ``backend``.

    Raises:
        ScenarioError: the scenario is wrong.
    """

    def __init__(self, scenario: str | Path | Mapping[str, Any] | Scenario, **overrides: Any) -> None:
        self._scenario = scenario
        super().__init__(name=load_scenario(scenario).name, config=overrides)

    def get_env_fun(
        self, num_envs: int, continuous_actions: bool, seed: int | None, device: Any
    ) -> Callable[[], TorchGridEnv]:
        """Return what builds the environments."""

        def build() -> TorchGridEnv:
            env: Any = TorchGridEnv(self._scenario, num_envs, device=device, **self.config)
            if seed is not None:
                env.set_seed(seed)
            return env  # type: ignore[no-any-return]

        return build

    def supports_continuous_actions(self) -> bool:
        """Say that agents may act by numbers, as the scenario has it."""
        return True

    def supports_discrete_actions(self) -> bool:
        """Say that agents may act by positions, as the scenario has it."""
        return True

    def has_render(self, env: Any) -> bool:
        """Say that there is nothing to look at."""
        return False

    def max_steps(self, env: Any) -> int:
        """Return the steps of an episode."""
        return int(env.envs.scenario.episode_length)

    def group_map(self, env: Any) -> dict[str, list[str]]:
        """Return the agents of each group."""
        return dict(env.group_map)

    def observation_spec(self, env: Any) -> Any:
        """Return what one environment's agents see."""
        return self._take(env, masks=False)

    def action_spec(self, env: Any) -> Any:
        """Return what one environment's agents do."""
        return env.full_action_spec_unbatched

    def state_spec(self, env: Any) -> None:
        """Return nothing: critics see what all agents do."""

    def info_spec(self, env: Any) -> None:
        """Return nothing: numbers in infos are for other faces."""

    def action_mask_spec(self, env: Any) -> Any:
        """Return the masks of agents that have positions, with ``action_masks: observations``; else nothing."""
        masks = self._take(env, masks=True)
        return None if masks.is_empty() else masks

    def _take(self, env: Any, *, masks: bool) -> Any:
        """Return the specs of what agents see that are masks, or are none."""
        specs = env.full_observation_spec_unbatched.clone()
        for group in self.group_map(env):
            for key in [key for key in specs[group].keys() if (key == "action_mask") != masks]:  # noqa: SIM118
                del specs[group][key]
            if specs[group].is_empty():
                del specs[group]
        return specs

    @staticmethod
    def env_name() -> str:
        """Return the name that BenchMARL files results under."""
        return "powergrid"
