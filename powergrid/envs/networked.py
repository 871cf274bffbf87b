"""NetworkedGridEnv: the environment RLlib trains on, one scenario behind one dict of settings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ray.rllib.env.multi_agent_env import MultiAgentEnv

from powergrid.envs.episode import AgentsFace
from powergrid.errors import ActionError, describe_unknown
from powergrid.scenario import as_env_config, scenario_from_config

Observations = dict[str, Any]
_RllibEnv: Any = MultiAgentEnv  # whose types name every argument more widely than an environment of our own can


class NetworkedGridEnv(AgentsFace, _RllibEnv):  # type: ignore[misc]
    """Let several agents run devices on one OpenDSS feeder, 96 quarter-hours a day.

    Description:
        Each step writes the agents' setpoints into the circuit, solves the unbalanced three-phase power flow
        and reads voltages, loadings and losses back.

    Action space:
        Box(-1, 1) with one entry per continuous action of the agent's devices, in the order of
        ``describe().actions``; -1..1 stands for the bounds given there. MultiDiscrete where the agent only has
        positions to set (taps, capacitor steps, switches), a Dict of ``continuous`` and ``discrete`` where both.

    Observation space:
        Box(-1, 1), float32: channels scaled by the bounds in ``describe().observations`` and clipped.
        ``mode="distributed"``: the world, the agent's zone and point of common coupling, its devices.
        ``mode="centralized"``: the same, then the whole network.

    Rewards:
        Minus the weighted sum of named terms, times ``reward.scale``; see ``describe().rewards``. Terms and metrics
        of each step are in ``infos[agent]``, units in ``describe().infos``.

    Starting state:
        Midnight of a day of the split, drawn by the seed or given as ``options={"day": n}``, solved with all
        devices left to themselves. Where the scenario has several ``feeders``, one is drawn first, or given as
        ``options={"feeder": name}``; ``task``, ``describe()`` and the counts are of that one.

    Episode end:
        Truncated after ``episode_length`` steps (only ``truncateds["__all__"]`` is set: RLlib reads flags per agent
        as termination). Terminated when the power flow diverges and the scenario says so.

    Args:
        config: ``env_name`` (a shipped scenario, or the path of a YAML file) or ``scenario`` (the data), and any
            scenario field by its key, for example ``{"env_name": "ieee13_mg", "mode": "distributed"}``; or a scenario's
            name or path alone.

    Raises:
        ScenarioError: with every problem of the settings.
        FeederError: the feeder does not compile or solve.
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012 (Gymnasium's own form)

    def __init__(self, config: Mapping[str, Any] | str | Path | None = None) -> None:
        super().__init__()
        # RLlib hands an EnvContext, a dict with attributes: the settings are kept, the worker's number becomes a stream
        self._config = as_env_config(config)
        self._open(scenario_from_config(self._config), _stream_of(config))
        self.agents = list(self.possible_agents)

    def get_observation_space(self, agent_id: str) -> Any:
        """Return the observation space of an agent."""
        return self.observation_spaces[agent_id]

    def get_action_space(self, agent_id: str) -> Any:
        """Return the action space of an agent."""
        return self.action_spaces[agent_id]

    def reset(
        self, *, seed: int | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[Observations, dict[str, dict[str, Any]]]:
        """Start an episode.

        Args:
            seed: Starts the stream of days and other draws anew; None goes on with it. The first reset without one
                takes the scenario's ``seed``.
            options: ``{"day": n}`` picks the day, ``{"feeder": name}`` the feeder where the scenario has several; keys
                of the scenario give numbers, or what they are drawn from.

        Returns:
            Observations and infos by agent.
        """
        self._episode.start(seed, options)
        return self._look()

    def step(
        self, actions: Mapping[str, Any]
    ) -> tuple[Observations, dict[str, float], dict[str, bool], dict[str, bool], dict[str, dict[str, Any]]]:
        """Play one step.

        Args:
            actions: One action for each agent.

        Returns:
            Observations, rewards, terminateds, truncateds and infos, as RLlib wants them.

        Raises:
            ActionError: an action has a wrong agent, shape, type or value; all of them.
            ScenarioError: the episode is over, or was never started, or the environment is closed.
        """
        episode = self._episode
        task = episode.ready()
        self._writer.write(actions, task.action_buffer())
        terminated, truncated = episode.play()
        rewards = dict(zip(self.possible_agents, task.rewards[0].tolist(), strict=True))
        # RLlib reads flags of single agents as termination, so only the whole is flagged
        return task.observation_dict(0), rewards, {"__all__": terminated}, {"__all__": truncated}, episode.infos()

    def count_violations(self, agent_id: str | None = None) -> int:
        """Count the nodes outside the voltage band, in an agent's zone or in the whole network."""
        metrics = self.task.metrics
        if agent_id is None:
            return int(metrics.violation_count[0])
        return round(float(metrics.zone_violation_count[0, self._index(agent_id)]))

    def compute_cost(self, agent_id: str | None = None) -> float:
        """Return the money the last step cost an agent, or all of them [USD].

        Energy bought less energy sold, fuel, wear of storage and switchgear; not the change of stored energy and
        not the penalties.
        """
        money = self.task.money()[0]
        return float(money.sum() if agent_id is None else money[self._index(agent_id)])

    def neutral_actions(self) -> dict[str, Any]:
        """Return the actions that leave every device to itself at the present step: the baseline ``no_control``."""
        return self._writer.read(self.task.simulation.neutral())

    def _index(self, agent_id: str) -> int:
        try:
            return self.possible_agents.index(agent_id)
        except ValueError:
            raise ActionError("agent", [describe_unknown("agent", agent_id, self.possible_agents)]) from None

    def _look(self) -> tuple[Observations, dict[str, dict[str, Any]]]:
        self.agents = list(self.possible_agents)
        return self.task.observation_dict(0), self._episode.infos()

    def __reduce__(self) -> tuple[Any, ...]:
        return _build, (type(self), self._config, self._episode.stream), self._moment()


def _build(kind: type[NetworkedGridEnv], config: Mapping[str, Any], stream: tuple[int, ...]) -> NetworkedGridEnv:
    """Build a pickled environment anew; its moment comes after."""
    env = kind(config)
    env._episode.stream = stream
    return env


def _stream_of(config: Any) -> tuple[int, ...]:
    """Tell apart environments that RLlib gives the same or neighbouring seeds: by worker, then by order of birth.

    RLlib seeds worker w, environment i with ``seed + w + i``, and its environment check resets all of them with 42.
    """
    worker = getattr(config, "worker_index", None)
    if worker is None:
        return ()
    # the context is the only thing that environments of one worker share
    births: int = getattr(config, "_powergrid_births", 0)
    config._powergrid_births = births + 1
    return int(worker), births
