"""A grid-free MultiAgentEnv with known numbers, so that training can be tested without OpenDSS."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from ray.rllib.env.multi_agent_env import MultiAgentEnv

STEPS = 96


class ToyGridEnv(MultiAgentEnv):
    """Two agents that shall each act like the first entry of what they see.

    Infos have values known by hand: a day's ``energy_cost_usd`` is 96 x 0.5 for MG1 and 96 x 1.5
    for MG2, ``voltage_violations`` adds up to 12 (one in every eighth step), ``v_mean_pu`` averages 1.02.
    """

    def __init__(self, config: Any = None) -> None:
        super().__init__()
        self.config = dict(config or {})
        self.possible_agents = ["MG1", "MG2"]
        self.agents = list(self.possible_agents)
        width = int(self.config.get("width", 6))
        mg2_width = int(self.config.get("mg2_width", width))
        widths = {"MG1": width, "MG2": mg2_width}
        self.observation_spaces = {a: gym.spaces.Box(-5.0, 5.0, (widths[a],), np.float32) for a in self.agents}
        kind = self.config.get("actions", "box")
        kinds = {"MG1": kind, "MG2": self.config.get("mg2_actions", kind)}
        self.action_spaces = {a: self._action_space(kinds[a]) for a in self.agents}
        self._rng = np.random.default_rng()
        self._t = 0

    def _action_space(self, kind: str) -> gym.Space:
        box = gym.spaces.Box(-1.0, 1.0, (3,), np.float32)
        return {
            "box": box,
            "one": gym.spaces.Box(-1.0, 1.0, (1,), np.float32),
            "wide_box": gym.spaces.Box(np.float32([-2.0, 0.0]), np.float32([4.0, 10.0])),
            "discrete": gym.spaces.Discrete(4),
            "multi_discrete": gym.spaces.MultiDiscrete([3, 5]),
            "dict": gym.spaces.Dict({"setpoints": box, "switches": gym.spaces.MultiDiscrete([2, 4])}),
        }[kind]

    def _observe(self) -> dict[str, np.ndarray]:
        self._seen = {
            a: self._rng.uniform(-1, 1, s.shape).astype(np.float32) for a, s in self.observation_spaces.items()
        }
        return dict(self._seen)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[dict, dict]:
        if seed is not None:
            self._rng = np.random.default_rng(seed)
        self._t = 0
        return self._observe(), {a: {} for a in self.agents}

    def step(self, actions: dict[str, Any]) -> tuple[dict, dict, dict, dict, dict]:
        if self.config.get("break_at") == self._t:
            raise ValueError("the toy grid is broken")
        rewards = {}
        for agent, action in actions.items():
            parts = [np.ravel(p) for p in (action.values() if isinstance(action, dict) else [action])]
            rewards[agent] = -float(np.mean((np.concatenate(parts) - self._seen[agent][0]) ** 2)) / 10
        self._t += 1
        infos = {
            a: {
                "energy_cost_usd": 0.5 + i,
                "voltage_violations": int(self._t % 8 == 0),
                "v_mean_pu": 1.0 + 0.04 * (self._t % 2),
                "converged": True,
                "note": "not a number",
            }
            for i, a in enumerate(self.agents)
        }
        over = self._t >= STEPS
        return self._observe(), rewards, {"__all__": False}, {"__all__": over}, infos
