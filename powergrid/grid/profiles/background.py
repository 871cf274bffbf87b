"""What generators, panels and batteries that no agent has do over a day: as OpenDSS plays them, by their shapes."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import numpy.typing as npt

from powergrid.grid.feeder.network import BY_LEVEL, BY_PRICE, Network
from powergrid.grid.feeder.network.shapes import SHAPE_MODES
from powergrid.grid.feeder.timing import CVR_CURVE, DRIVEN_PROPERTIES
from powergrid.grid.profiles.generation import Generation
from powergrid.grid.profiles.profiles import Profiles

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


#: The write of batteries; what a step says of it is the level of their shapes, of which the circuit makes kW.
BATTERIES = ("Storage", "kW")
#: OpenDSS's ordinals of Storage.DispMode that need no control: default, by level of demand, by price, and follow.
SELF_DISPATCHED = (0, BY_LEVEL, BY_PRICE, 4)


class Background:
    """Say what moves the generators and panels of a feeder.

    A generator follows its own shape and else does what the model says, as in OpenDSS. Panels follow theirs, in sun and
    in temperature; without one they follow the sun of the profiles, where OpenDSS would have them at full sun all
    night. A table that a user brings goes before the shapes of panels.

    Args:
        profiles: The exogenous series, in steps of the simulation.
        network: The feeder.
        devices: ``class.name``, lower case, of the elements that are devices.

    Attributes:
        writes: Class, property and names of elements of each property that is written every step.
    """

    def __init__(self, profiles: Profiles, network: Network, devices: Collection[str]) -> None:
        self._profiles, self._network, sources = profiles, network, network.sources
        mode = profiles.shape_mode or network.shape_mode
        self._mode, self._generation = mode, Generation(network, mode)
        generation = self._generation
        panels = network.followed_by("PVSystem", mode)
        if profiles.own_sun:
            panels = np.full(len(panels), -1)
        self._followed = {"Generator": generation.followed, "PVSystem": panels}
        self._batteries = network.followed_by("Storage", mode)
        self._driven = {name: network.followed_by(name, mode) for name in sources.driven}
        n_loads = len(network.loads.names)
        self._curved = network.followed_by(CVR_CURVE, mode) if CVR_CURVE in network.shapes_of else np.full(n_loads, -1)
        warmed = sources.temperature_of[SHAPE_MODES.index(mode)]
        sunny = panels >= 0 if profiles.pv_pu is None else np.ones(len(panels), dtype=np.bool_)
        moved = {
            ("PVSystem", "Irradiance"): sunny,
            ("PVSystem", "Temperature"): (panels >= 0) & (warmed >= 0),
            ("Generator", "kW"): generation.moved,
            ("Generator", "kvar"): generation.moved,
            # Which a write of kW sets anew.
            ("Generator", "MaxKVAR"): generation.holds_voltage,
            ("Generator", "MinKVAR"): generation.holds_voltage,
            **{(name, DRIVEN_PROPERTIES[name]): followed >= 0 for name, followed in self._driven.items()},
            # After their kW; the circuit says where each goes on from.
            ("IndMach012", "slip"): np.ones(len(sources.slips), dtype=np.bool_),
            ("Load", "CVRwatts"): self._curved >= 0,
            ("Load", "CVRvars"): self._curved >= 0,
            BATTERIES: np.isin(sources.storage_mode, SELF_DISPATCHED),
        }
        self._places, self.writes = list[IntArray](), list[tuple[str, str, tuple[str, ...]]]()
        for (class_name, key), wanted in moved.items():
            names = network.names_of(class_name)
            free = [f"{class_name}.{name}".lower() not in devices for name in names]
            places = np.flatnonzero(wanted & np.array(free, dtype=np.bool_))
            if places.size:
                self._places.append(places)
                self.writes.append((class_name, key, tuple(names[i] for i in places.tolist())))
        self._warmed = warmed

    def lay_out(self, day: int, n_steps: int) -> list[FloatArray]:
        """Return the values of each write from midnight of a day on, each shape (n_steps, n_elements)."""
        found = []
        for (class_name, key, _), places in zip(self.writes, self._places, strict=True):
            if (class_name, key) == BATTERIES:
                found.append(self._level_of_batteries(places, day, n_steps))
            elif class_name == "Load":
                factors = self._network.shapes.sample(self._curved[places], self._profiles.step_ends(day, n_steps))
                found.append(np.nan_to_num(factors[key == "CVRvars"]))
            elif key == "slip":
                found.append(np.tile(self._network.sources.slips[places], (n_steps, 1)))
            elif class_name in self._driven:
                found.append(self._drive(class_name, places, day, n_steps))
            elif key == "Irradiance":
                found.append(self._sun(places, day, n_steps) * self._network.sources.irradiance[places])
            elif key == "Temperature":
                temperature, _ = self._network.sources.temperatures.sample(
                    self._warmed[places], self._profiles.step_ends(day, n_steps)
                )
                found.append(temperature)
            elif key in ("MaxKVAR", "MinKVAR"):
                found.append(self._generation.limits(places, n_steps, key))
            else:
                power = self._generation.lay_out(places, self._profiles.step_ends(day, n_steps))
                found.append(power[key == "kvar"])
        return found

    def _sun(self, places: IntArray, day: int, n_steps: int) -> FloatArray:
        """Return the multiplier of the irradiance on panels, shape (n_steps, n)."""
        profiles, own = self._profiles, self._followed["PVSystem"][places]
        first = day * profiles.rows_per_day
        sun = np.ones(n_steps) if profiles.pv_pu is None else profiles.pv_pu[first : first + n_steps]
        found, shaped = np.tile(sun[:, None], (1, len(own))), own >= 0
        found[:, shaped], _ = self._network.shapes.sample(own[shaped], profiles.step_ends(day, n_steps))
        return found

    def _level_of_batteries(self, places: IntArray, day: int, n_steps: int) -> FloatArray:
        """Return what batteries compare to their triggers: their shape, the level of demand, or the price."""
        found, mode = self._level(self._batteries[places], day, n_steps), self._network.sources.storage_mode[places]
        if np.isin(mode, (BY_LEVEL, BY_PRICE)).any():
            demand, price = self._network.sources.dispatch.levels(self._mode, self._profiles.step_ends(day, n_steps))
            found = np.where(mode == BY_LEVEL, demand[:, None], np.where(mode == BY_PRICE, price[:, None], found))
        return found

    def _level(self, own: IntArray, day: int, n_steps: int) -> FloatArray:
        """Return the values of shapes, 1 where there is none, shape (n_steps, n)."""
        found, shaped = np.ones((n_steps, len(own))), own >= 0
        found[:, shaped], _ = self._network.shapes.sample(own[shaped], self._profiles.step_ends(day, n_steps))
        return found

    def _drive(self, class_name: str, places: IntArray, day: int, n_steps: int) -> FloatArray:
        """Return the one number that shapes move of elements of a class, shape (n_steps, n)."""
        own, driven = self._driven[class_name][places], self._network.sources.driven[class_name]
        actual = self._network.shapes.use_actual[own]
        return self._level(own, day, n_steps) * np.where(actual, driven.per_actual[places], driven.nominal[places])

    def has_shape(self, elements: Sequence[str]) -> bool:
        """Whether any device's own element follows a shape; see :meth:`offered`."""
        return bool((self._shape_of(elements)[0] >= 0).any())

    def says_kw(self, elements: Sequence[str]) -> npt.NDArray[np.bool_]:
        """Return whether what :meth:`offered` gives of each is kW: a Generator's shape of actual values says these."""
        own, _, panel = self._shape_of(elements)
        found = own >= 0
        found[found] = self._network.shapes.use_actual[own[found]]
        return found & (panel < 0)

    def _shape_of(self, elements: Sequence[str]) -> tuple[IntArray, FloatArray, IntArray]:
        """Return the shape that each device's element follows, -1 for none, what its values are multiplied by, panels.

        The last is the place of the element among PVSystems, -1 where it is none.
        """
        shapes, sources = self._network.shapes, self._network.sources
        own, rating, panel = np.full(len(elements), -1), np.ones(len(elements)), np.full(len(elements), -1)
        for column, element in enumerate(elements):
            class_name = next((name for name in self._followed if element.startswith(f"{name.lower()}.")), "")
            place = self._network.find_element(element) if class_name else None
            if not isinstance(place, int):
                continue
            own[column] = followed = int(self._followed[class_name][place])
            if class_name == "PVSystem":
                rating[column], panel[column] = sources.irradiance[place], place
            elif followed < 0 or not shapes.use_actual[followed]:
                rating[column] = sources.generator_factor
        return own, rating, panel

    def offered(self, elements: Sequence[str], day: int, n_steps: int) -> FloatArray:
        """Return what the shapes of devices' own elements offer them, in parts of their rating; see :meth:`says_kw`.

        Args:
            elements: ``class.name`` of each device's element, lower case, empty where it has none.
            day: The day.
            n_steps: Number of steps from its midnight on.

        Returns:
            Parts of the rating, or kW, NaN where no shape says any, shape (n_steps, n_devices).
        """
        own, rating, panel = self._shape_of(elements)
        parts, shaped = np.full((n_steps, len(elements)), np.nan), own >= 0
        p, _ = self._network.shapes.sample(own[shaped], self._profiles.step_ends(day, n_steps))
        parts[:, shaped] = np.maximum(p * rating[shaped], 0.0)
        for column in np.flatnonzero(shaped & (panel >= 0)).tolist():
            parts[:, column] = self._convert(int(panel[column]), parts[:, column], day)
        return parts

    def _convert(self, panel: int, sun: FloatArray, day: int) -> FloatArray:
        """Return what a panel gives to the grid in some sun, in parts of its Pmpp, by its curves and thresholds."""
        sources, by_load = self._network.sources, int(self._network.sources.curve_of[1, panel])
        by_heat = int(sources.curve_of[0, panel])
        pmpp, kva, cut_in, cut_out = sources.panel_ratings[:, panel].tolist()
        if by_heat >= 0:
            air, warmed = np.full((len(sun), 1), sources.panel_temperature[panel]), self._warmed[[panel]]
            if warmed[0] >= 0:
                air, _ = sources.temperatures.sample(warmed, self._profiles.step_ends(day, len(sun)))
            sun = np.maximum(sun * _read_off(sources.curves[by_heat], air[:, 0]), 0.0)
        load = sun * (pmpp / kva)
        # On from the one level up, off below the other, in between as it was; before midnight it was on.
        moves = np.flatnonzero((load >= cut_in / 100.0) | (load < cut_out / 100.0))
        last = np.searchsorted(moves, np.arange(len(sun)), side="right") - 1
        on = (last < 0) | (load[moves[last]] >= cut_in / 100.0) if len(moves) else True
        given: FloatArray = np.where(on, sun if by_load < 0 else sun * _read_off(sources.curves[by_load], load), 0.0)
        return np.maximum(given, 0.0)


def _read_off(curve: tuple[FloatArray, FloatArray], at: FloatArray) -> FloatArray:
    """Return a curve's values, its first and last lines drawn on beyond its ends, as OpenDSS does; shape as ``at``."""
    x, y = curve
    if len(x) < 2:
        return np.full(at.shape, y[0] if len(y) else 1.0)
    right = np.clip(np.searchsorted(x, at), 1, len(x) - 1)
    length = x[right] - x[right - 1]
    slope = (y[right] - y[right - 1]) / np.where(length == 0.0, 1.0, length)
    found: FloatArray = y[right - 1] + slope * (at - x[right - 1])
    return found
