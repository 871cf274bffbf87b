"""What can be known at a step of the hours to come: forecasts of sun and demand with a stated error, and the price.

Forecasts of the day ahead are what comes, times an error of a stated size; those of persistence are the day before.
Neither knows more of what comes than that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
ForecastName = Literal["day_ahead", "persistence", "perfect"]
PriceForecastName = Literal["known", "persistence"]


@dataclass(frozen=True)
class Forecasts:
    """How the hours to come are foreseen.

    Attributes:
        hours: Means are told over the next so many hours [h].
        kind: ``day_ahead``, ``persistence`` or ``perfect``.
        sun_error: Standard deviation of the error of sun, in parts of what comes; of the day ahead alone.
        demand_error: The same of the demand of each zone.
        error_hours: Time in which an error falls to 1/e of itself [h].
        price: ``known``, what comes but for its error, or ``persistence``.
        price_error: Standard deviation of the error of the price, in parts of what comes; where it is known.
    """

    hours: tuple[float, ...] = (1.0, 3.0, 6.0, 12.0)
    kind: ForecastName = "day_ahead"
    sun_error: float = 0.15
    demand_error: float = 0.05
    error_hours: float = 3.0
    price: PriceForecastName = "known"
    price_error: float = 0.0

    def foresee(
        self, rngs: Sequence[np.random.Generator], comes: FloatArray, before: FloatArray, dt_h: float
    ) -> FloatArray:
        """Return forecasts of sun, the first column, and of the demand of zones.

        Args:
            rngs: A generator for each environment, where there is an error to draw.
            comes: What comes, shape (n_envs, n_steps, 1 + n_zones).
            before: The day before, of the same shape.
            dt_h: Length of a step [h].

        Returns:
            Forecasts, of the same shape and unit.
        """
        if self.kind != "day_ahead":
            return before if self.kind == "persistence" else comes
        return self._miss(rngs, comes, np.array([self.sun_error, *[self.demand_error] * (comes.shape[2] - 1)]), dt_h)

    def foresee_price(
        self, rngs: Sequence[np.random.Generator], comes: FloatArray, before: FloatArray, dt_h: float
    ) -> FloatArray:
        """Return forecasts of the price, as :meth:`foresee` does of the rest, all of shape (n_envs, n_steps)."""
        if self.price == "persistence":
            return before
        return (
            self._miss(rngs, comes[:, :, None], np.array([self.price_error]), dt_h)[:, :, 0]
            if self.price_error
            else comes
        )

    def _miss(
        self, rngs: Sequence[np.random.Generator], comes: FloatArray, spread: FloatArray, dt_h: float
    ) -> FloatArray:
        """Return what comes times 1 plus errors of a standard deviation for each column that fade with time."""
        n_steps, n_columns = comes.shape[1:]
        drawn = np.stack([rng.standard_normal((n_steps, n_columns)) for rng in rngs])
        keep = np.exp(-dt_h / self.error_hours)
        errors = np.empty_like(drawn)
        errors[:, 0] = drawn[:, 0]
        for step in range(1, n_steps):
            errors[:, step] = keep * errors[:, step - 1] + np.sqrt(1.0 - keep**2) * drawn[:, step]
        return np.asarray(comes * np.maximum(1.0 + spread * errors, 0.0), dtype=np.float64)

    def average(self, foreseen: FloatArray, dt_h: float) -> FloatArray:
        """Return the mean over the next hours at each step, the present one among them, up to the end of the day.

        Args:
            foreseen: Shape (n_envs, n_steps, n_columns).
            dt_h: Length of a step [h].

        Returns:
            Shape (n_envs, n_steps + 1, n_columns, n_hours); the row after the last step repeats what is foreseen of it.
        """
        n_steps = foreseen.shape[1]
        total = np.concatenate([np.zeros_like(foreseen[:, :1]), np.cumsum(foreseen, axis=1)], axis=1)
        begin = np.minimum(np.arange(n_steps + 1), n_steps - 1)
        means = []
        for hours in self.hours:
            end = np.minimum(begin + max(1, round(hours / dt_h)), n_steps)
            means.append((total[:, end] - total[:, begin]) / (end - begin)[None, :, None])
        return np.stack(means, axis=-1)
