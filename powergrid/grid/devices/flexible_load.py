"""Loads that can give way: what is not taken now is owed, and paid back later; no comfort beyond that bound."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from powergrid.grid.devices.fleet import PowerFleet, Powers, Request
from powergrid.grid.devices.spec import ActionSpec, BoundSpec, Exogenous, FloatArray, Rows, StateSpec

#: Demand below which a share of it means nothing [kW].
_TINY_KW = 1e-9


class FlexibleLoadSpec(BoundSpec):
    """What YAML may say about a load that can shift its demand in time."""

    element_classes: ClassVar[tuple[str, ...]] = ("Load",)
    drawn: ClassVar[tuple[str, ...]] = ("owed_max_kwh",)

    kind: Literal["flexible_load"] = Field(description="Kind of the device.")
    share_min: float = Field(default=0.6, ge=0, le=1, description="Least share of its demand the load takes.")
    share_max: float = Field(default=1.3, ge=1, description="Largest share of its demand, when it pays back.")
    owed_max_kwh: float = Field(gt=0, description="Most energy the load may owe at any time.")

    def find_problems(self) -> Iterable[str]:
        """Yield what contradicts between the keys."""
        yield from super().find_problems()
        if not self.share_min < self.share_max:
            yield f"share_min {self.share_min:g} is not below share_max {self.share_max:g}"


class FlexibleLoadFleet(PowerFleet[FlexibleLoadSpec]):
    """All the flexible loads: what is not taken now is owed, and only what is owed is paid back.

    Attributes:
        owed_kwh: Energy put off and not yet paid back, 0..owed_max_kwh [kWh], shape (n_envs, n).
        share: Part of its demand that each load was set to take in the last step, shape (n_envs, n).
        demand_kw: What it would have taken [kW], shape (n_envs, n).
        cut_kw: Demand not taken in the step that was projected last, negative where debt is paid [kW], (n_envs, n).
    """

    kind: ClassVar[str] = "flexible_load"
    limited: ClassVar[tuple[str, ...]] = ("cut_kw",)
    memory: ClassVar[tuple[str, ...]] = ("owed_kwh", "share", "demand_kw", "cut_kw")

    def __init__(
        self,
        devices: Mapping[str, FlexibleLoadSpec],
        dt_h: float,
        horizon_steps: int,
        n_envs: int = 1,
        q_per_kw: npt.ArrayLike = 0.0,
        demand_max_kw: npt.ArrayLike = np.inf,
    ) -> None:
        """Make the fleet.

        Args:
            devices: Spec of each load by its name.
            dt_h: Length of a step [h].
            horizon_steps: Steps of an episode.
            n_envs: Number of environments.
            q_per_kw: Reactive over active demand of each load, scalar or shape (n,).
            demand_max_kw: Largest demand of each load, the bound of its state [kW], scalar or shape (n,).
        """
        super().__init__(devices, dt_h, horizon_steps, n_envs)
        demand = np.broadcast_to(np.asarray(demand_max_kw, dtype=np.float64), (self.n,))
        actions, states = [], []
        for (name, spec), demand_high in zip(devices.items(), demand.tolist(), strict=True):
            actions.append(ActionSpec(name, "share", "pu", spec.share_min, spec.share_max))
            states.append(StateSpec(name, "owed_kwh", "kWh", 0.0, spec.owed_max_kwh))
            states.append(StateSpec(name, "share", "pu", spec.share_min, spec.share_max))
            states.append(StateSpec(name, "demand_kw", "kW", 0.0, demand_high))
        self._take_tables(actions, states)
        self._owed_max = self._values("owed_max_kwh")
        self._kw_per_kwh, self._kw_span = self._tile(np.full(self.n, -1 / self.dt_h)), self._owed_max / self.dt_h
        self._zero, self._one, self._hours = self._zeros(), self._zeros() + 1.0, self._zeros() + self.dt_h
        self._tiny_kw = self._zeros() + _TINY_KW
        self._kvar_per_kw = self._tile(np.broadcast_to(np.asarray(q_per_kw, dtype=np.float64), (self.n,)))
        self.owed_kwh, self.share, self.demand_kw = self._zeros(), self._zeros() + 1.0, self._zeros()
        self.cut_kw = self._zeros()
        self.terms = {"deferred_kwh": self._zeros()}

    def _start(self, rows: Rows, rngs: Sequence[np.random.Generator]) -> None:
        self.share[rows] = 1.0

    def neutral(self, exo: Exogenous) -> FloatArray:
        """Return the actions for share 1, shape (n_envs, n_actions)."""
        low, high = self._values("share_min"), self._values("share_max")
        return np.asarray((1 - (high + low) / 2) / ((high - low) / 2))

    def _find_request(self) -> Request:
        """Say what the actions mean: a cut of demand, 1 - share, which is exactly zero for a load left to itself."""
        request = super()._find_request()
        low, high = (np.array([getattr(spec, key) for spec in self.specs]) for key in ("share_min", "share_max"))
        request.gain[0], request.offset[0] = -(high - low) / 2, 1 - (high + low) / 2
        request.low[0], request.high[0] = 1 - high, 1 - low
        return request

    def limit(self, own: Powers, exo: Exogenous) -> None:
        """Limit the asked share so that the energy owed stays between 0 and ``owed_max_kwh``.

        Sets ``p_kw = -share·demand`` and the reactive power of the load's power factor then.
        """
        demand, asked_p_kw, p_kw = exo.demand_kw, own.asked_p_kw, own.p_kw
        asked = asked_p_kw * demand
        least = self.owed_kwh * self._kw_per_kwh  # pays all that is owed
        self.cut_kw = np.minimum(np.maximum(asked, least), least + self._kw_span)
        np.subtract(asked, demand, out=asked_p_kw)
        np.subtract(self.cut_kw, demand, out=p_kw)
        kvar_per_kw = self._kvar_per_kw if exo.demand_kvar_per_kw is None else exo.demand_kvar_per_kw
        np.multiply(asked_p_kw, kvar_per_kw, out=own.asked_q_kvar)
        np.multiply(p_kw, kvar_per_kw, out=own.q_kvar)

    def move_on(self, own: Powers, exo: Exogenous) -> None:
        """Book the energy put off or paid back.

        What is owed follows the share that was set: what the grid's voltage does to the delivered power of
        a load is no debt of its owner.
        """
        self.demand_kw = exo.demand_kw.copy()
        self.share = self._one - self.cut_kw / np.maximum(self.demand_kw, self._tiny_kw)
        deferred = self.cut_kw * self._hours
        self.owed_kwh = np.minimum(np.maximum(self.owed_kwh + deferred, self._zero), self._owed_max)
        self.terms = {"deferred_kwh": np.maximum(deferred, self._zero)}

    def unserved_at_end_kwh(self) -> FloatArray:
        """Return the energy still owed, which nobody will serve if the episode ends now [kWh], (n_envs, n)."""
        return self.owed_kwh.copy()
