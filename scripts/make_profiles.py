"""Make ``powergrid/grid/profiles/profiles.npz``, the year at 15 minutes that ships with the package.

Needs the optional extra ``profiles`` (pvlib, demandlib); nothing is downloaded and every random draw is seeded.
Sources, formulas and measured figures are in ``docs/profiles.md``.
"""

from __future__ import annotations

import argparse
import io
import json
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import demandlib
import numpy as np
import numpy.typing as npt
import pandas as pd
import pvlib
from demandlib import bdew
from scipy.signal import lfilter

FloatArray = npt.NDArray[np.float64]

SEED = 2018
YEAR = 2018  # not a leap year, and its 1 January is a Monday
ROWS_PER_HOUR = 4
ROWS_PER_DAY = 24 * ROWS_PER_HOUR
N_ROWS = 365 * ROWS_PER_DAY
N_VARIANTS = 8
PACKAGE = Path(__file__).resolve().parent.parent / "powergrid"
DEFAULT_TARGET = PACKAGE / "grid" / "profiles" / "profiles.npz"
OTHER_TARGET = PACKAGE / "evaluation" / "benchmark" / "sun_miami.parquet"

TMY3_FILE = Path(pvlib.__file__).parent / "data" / "723170TYA.CSV"
TMY2_FILE = Path(pvlib.__file__).parent / "data" / "12839.tm2"
TILT_DEG = 25.0
AZIMUTH_DEG = 180.0
ALBEDO = 0.2
GAMMA_PER_K = -0.0037  # crystalline silicon, PVWatts V5 "standard" is -0.0047 and "premium" -0.0035
DC_LOSSES_PERCENT = {"soiling": 2, "mismatch": 2, "wiring": 2, "connections": 0.5, "lid": 1.5,
                     "shading": 0, "snow": 0, "nameplate_rating": 0, "age": 0, "availability": 0}  # fmt: skip
PV_MAX_PU = 1.05

# BDEW profile, std of the fast and the slow noise, std of the day-to-day and the weekday factors
CLASSES: dict[str, tuple[str, float, float, float, float]] = {
    "residential": ("H25", 0.09, 0.07, 0.04, 0.04),
    "commercial": ("G25", 0.05, 0.05, 0.03, 0.04),
    "agricultural": ("L25", 0.08, 0.08, 0.05, 0.05),
}
SYSTEM_SHARE = {"residential": 0.55, "commercial": 0.38, "agricultural": 0.07}
SOLAR_SHARE = 0.20

# stored integer type and the value of one count
QUANTA: dict[str, tuple[type[np.integer[Any]], float]] = {
    "demand_pu": (np.uint16, 1e-4),
    "pv_pu": (np.uint16, 1e-4),
    "irradiance_pu": (np.uint16, 1e-4),
    "temperature_c": (np.int16, 1e-2),
    "price_usd_per_kwh": (np.int16, 1e-4),
}


def make_calendar() -> pd.DatetimeIndex:
    """Return the start of each quarter-hour of the year, local standard time, without a time zone."""
    return pd.date_range(f"{YEAR}-01-01", periods=N_ROWS, freq="15min", name="time")


def draw_noise(rng: np.random.Generator, std: float, hours: float, n_rows: int = N_ROWS) -> FloatArray:
    """Draw stationary AR(1) noise with a standard deviation [-] and a correlation time [h], shape (n_rows,)."""
    phi = np.exp(-1.0 / (hours * ROWS_PER_HOUR))
    shocks = rng.standard_normal(n_rows) * std * np.sqrt(1 - phi**2)
    shocks[0] = rng.standard_normal() * std
    return np.asarray(lfilter([1.0], [1.0, -phi], shocks), dtype=np.float64)


# demand ----------------------------------------------------------------------------------------------------------


def read_load_profiles() -> dict[str, FloatArray]:
    """Read the BDEW standard load profiles (revision of 2025) of the year, each with mean 1, by class."""
    bases: dict[str, FloatArray] = {}
    for name, (profile, *_) in CLASSES.items():
        series = getattr(bdew, profile)(make_calendar()).to_numpy(dtype=np.float64)
        if series.shape != (N_ROWS,) or not np.isfinite(series).all():
            raise ValueError(f"demandlib's {profile} gave {series.shape[0]} rows or gaps, not {N_ROWS} numbers")
        bases[name] = series / series.mean()
    return bases


def make_variant(base: FloatArray, spreads: tuple[float, float, float, float], rng: np.random.Generator) -> FloatArray:
    """Make the demand behind one transformer out of its class's standard profile.

    Args:
        base: Standard load profile, mean 1, shape (N_ROWS,).
        spreads: Standard deviations of the fast (1 h) noise, the slow (8 h) noise, the day and the weekday factors.
        rng: Source of the variation.

    Returns:
        Demand with its 99.5th percentile at 1.0 [pu], shape (N_ROWS,).
    """
    fast, slow, day, weekday = spreads
    rows = np.arange(N_ROWS, dtype=np.float64)
    shift_rows = rng.uniform(-45.0, 45.0) / 15.0
    shape = np.interp(rows + shift_rows, rows, base, period=N_ROWS)
    hour = rows % ROWS_PER_DAY / ROWS_PER_HOUR
    morning, evening = rng.normal(0.0, 0.12, size=2)
    emphasis = morning * np.exp(-(((hour - 8.0) / 2.0) ** 2)) + evening * np.exp(-(((hour - 19.5) / 2.5) ** 2))
    by_weekday = rng.normal(0.0, weekday, size=7)[np.arange(365) % 7]
    by_day = np.repeat(by_weekday + rng.normal(0.0, day, size=365), ROWS_PER_DAY)
    # a day's factor fades into the next over three hours, so that midnight shows no step
    kernel = np.ones(3 * ROWS_PER_HOUR) / (3 * ROWS_PER_HOUR)
    by_day = np.convolve(np.pad(by_day, (len(kernel) // 2, len(kernel) // 2 - 1), mode="edge"), kernel, mode="valid")
    noise = draw_noise(rng, fast, 1.0) + draw_noise(rng, slow, 8.0)
    demand = shape * np.exp(emphasis + by_day + noise)
    return np.asarray(demand / np.quantile(demand, 0.995), dtype=np.float64)


def make_demand() -> dict[str, FloatArray]:
    """Make eight variants of each class of customer, 99.5th percentile 1.0 [pu], by series name."""
    bases = read_load_profiles()
    demand: dict[str, FloatArray] = {}
    for number, (name, (_, *spreads)) in enumerate(CLASSES.items()):
        for variant in range(N_VARIANTS):
            rng = np.random.default_rng([SEED, 1, number, variant])
            fast, slow, day, weekday = spreads
            demand[f"{name}_{variant}"] = make_variant(bases[name], (fast, slow, day, weekday), rng)
    return demand


# weather and sun -------------------------------------------------------------------------------------------------


def read_weather() -> tuple[pd.DataFrame, dict[str, Any]]:
    """Read the TMY3 year that ships with pvlib: hourly, irradiance [W/m2], temperature [deg C], wind [m/s]."""
    frame, meta = pvlib.iotools.read_tmy3(str(TMY3_FILE), coerce_year=YEAR, map_variables=True)
    columns = ["ghi", "dhi", "temp_air", "wind_speed", "pressure"]
    if len(frame) != 8760 or frame[columns].isna().any(axis=None):
        raise ValueError(f"{TMY3_FILE.name}: expected 8760 complete hours, got {len(frame)}")
    return frame[columns], meta


def read_other_weather() -> tuple[pd.DataFrame, dict[str, Any]]:
    """Read the TMY2 year of Miami that ships with pvlib, whose months are of 1961 to 1990, as :func:`read_weather`."""
    frame, meta = pvlib.iotools.read_tmy2(str(TMY2_FILE))
    names = {"GHI": "ghi", "DHI": "dhi", "DryBulb": "temp_air", "Wspd": "wind_speed"}
    weather = frame[list(names)].rename(columns=names).astype(float)
    weather[["temp_air", "wind_speed"]] /= 10.0  # tenths
    if len(weather) != 8760 or weather.isna().any(axis=None):
        raise ValueError(f"{TMY2_FILE.name}: expected 8760 complete hours, got {len(weather)}")
    return weather, {key: meta[key] for key in ("TZ", "latitude", "longitude", "altitude")}


def interpolate_hours(values: FloatArray, at_hour: FloatArray, hour_of_value: FloatArray) -> FloatArray:
    """Interpolate hourly values linearly, the year taken as a circle."""
    return np.asarray(np.interp(at_hour, hour_of_value, values, period=8760.0), dtype=np.float64)


def match_hours(quarters: FloatArray, hours: FloatArray) -> FloatArray:
    """Scale each hour's four quarters so that their mean is the hour's own value, zero where nothing is to scale."""
    means = quarters.reshape(-1, ROWS_PER_HOUR).mean(axis=1)
    factors = np.divide(hours, means, out=np.zeros_like(hours), where=means > 0)
    return np.asarray(quarters * np.repeat(factors, ROWS_PER_HOUR), dtype=np.float64)


def make_irradiance(weather: pd.DataFrame, sun: pd.DataFrame, clear: pd.DataFrame) -> pd.DataFrame:
    """Bring hourly GHI and DHI to 15 minutes through the clear-sky index, with clouds that keep each hourly mean.

    The beam on the horizontal is ``index * clear-sky beam``; the index is interpolated between hours, and moved by
    seeded noise that is largest in broken cloud (index near 0.5) and vanishes under clear and overcast skies.
    """
    rng = np.random.default_rng([SEED, 2])
    ghi, dhi = (weather[column].to_numpy(dtype=np.float64) for column in ("ghi", "dhi"))
    beam = np.maximum(ghi - dhi, 0.0)
    cos_zenith = np.maximum(np.cos(np.radians(sun["apparent_zenith"].to_numpy(dtype=np.float64))), 0.0)
    clear_ghi = clear["ghi"].to_numpy(dtype=np.float64) * (cos_zenith > 0)
    clear_beam = clear["dni"].to_numpy(dtype=np.float64) * cos_zenith
    at_hour = (np.arange(N_ROWS) + 0.5) / ROWS_PER_HOUR
    middles = np.arange(8760) + 0.5

    def interpolate_index(hourly: FloatArray, sky: FloatArray) -> FloatArray:
        mean_sky = sky.reshape(-1, ROWS_PER_HOUR).mean(axis=1)
        up = mean_sky > 5.0  # [W/m2]; below that a ratio of two small numbers says nothing
        return np.clip(interpolate_hours(hourly[up] / mean_sky[up], at_hour, middles[up]), 0.0, 1.3)

    index = interpolate_index(beam, clear_beam)
    amplitude = 4.0 * np.clip(index, 0.0, 1.0) * (1.0 - np.clip(index, 0.0, 1.0))
    moved = np.clip(index + amplitude * draw_noise(rng, 0.22, 0.5), 0.0, np.maximum(index, 1.0))
    moved = np.where(index > 0.0, np.maximum(moved, 0.02), 0.0)
    beam_quarters = match_hours(moved * clear_beam, beam)
    beam_quarters = match_hours(np.minimum(beam_quarters, 1.08 * np.maximum(index, 1.0) * clear_beam), beam)
    dhi_quarters = match_hours(interpolate_index(dhi, clear_ghi) * clear_ghi, dhi)
    dni = np.divide(beam_quarters, cos_zenith, out=np.zeros(N_ROWS), where=cos_zenith > 0)
    # at a grazing sun a watt on the horizontal would otherwise stand for a beam stronger than any sky lets through
    dni = np.minimum(dni, 1.2 * clear["dni"].to_numpy(dtype=np.float64))
    return pd.DataFrame({"ghi": beam_quarters + dhi_quarters, "dhi": dhi_quarters, "dni": dni}, index=sun.index)


def make_sun(read: Callable[[], tuple[pd.DataFrame, dict[str, Any]]] = read_weather) -> dict[str, FloatArray]:
    """Make the irradiance on the modules, the air temperature and the DC power per unit of STC rating.

    Source:
        Ineichen clear sky, Hay-Davies transposition, physical IAM on the beam, Faiman cell temperature and the
        PVWatts V5 DC model, all as in pvlib.
    """
    weather, meta = read()
    middle = (make_calendar() + pd.Timedelta(minutes=7.5)).tz_localize(int(meta["TZ"] * 3600))
    site = pvlib.location.Location(meta["latitude"], meta["longitude"], altitude=meta["altitude"])
    sun = site.get_solarposition(middle)
    clear = site.get_clearsky(middle, model="ineichen", solar_position=sun)
    sky = make_irradiance(weather, sun, clear)
    at_hour = (np.arange(N_ROWS) + 0.5) / ROWS_PER_HOUR
    stamps = np.arange(1, 8761, dtype=np.float64)  # TMY3 gives meteorology at the stamp, irradiance for the hour before
    temperature = interpolate_hours(weather["temp_air"].to_numpy(dtype=np.float64), at_hour, stamps)
    wind = interpolate_hours(weather["wind_speed"].to_numpy(dtype=np.float64), at_hour, stamps)
    zenith, azimuth = sun["apparent_zenith"], sun["azimuth"]
    plane = pvlib.irradiance.get_total_irradiance(
        TILT_DEG, AZIMUTH_DEG, zenith, azimuth, sky["dni"], sky["ghi"], sky["dhi"],
        dni_extra=pvlib.irradiance.get_extra_radiation(middle), albedo=ALBEDO, model="haydavies",
    )  # fmt: skip
    poa = plane["poa_global"].fillna(0.0).clip(lower=0.0)
    aoi = pvlib.irradiance.aoi(TILT_DEG, AZIMUTH_DEG, zenith, azimuth)
    absorbed = (plane["poa_direct"] * pvlib.iam.physical(aoi) + plane["poa_diffuse"]).fillna(0.0).clip(lower=0.0)
    cell = pvlib.temperature.faiman(poa, temperature, wind)
    losses = pvlib.pvsystem.pvwatts_losses(**DC_LOSSES_PERCENT) / 100.0
    dc = pvlib.pvsystem.pvwatts_dc(absorbed, cell, pdc0=1.0, gamma_pdc=GAMMA_PER_K) * (1.0 - losses)
    up = (zenith < 90.0).to_numpy()
    return {
        "irradiance_pu": np.where(up, poa.to_numpy(dtype=np.float64) / 1000.0, 0.0),
        "temperature_c": temperature,
        "pv_pu": np.clip(np.where(up, dc.to_numpy(dtype=np.float64), 0.0), 0.0, PV_MAX_PU),
    }


# prices ----------------------------------------------------------------------------------------------------------


def make_time_of_use() -> FloatArray:
    """Make a three-step tariff by hour, weekday and season [USD/kWh], shape (N_ROWS,)."""
    time = make_calendar()
    hour = time.hour.to_numpy()
    weekend = time.day_of_week.to_numpy() >= 5
    summer = np.isin(time.month.to_numpy(), (6, 7, 8, 9))
    middle = np.where(summer, 0.15, 0.13)
    peak = np.where(summer, 0.32, 0.24)
    price = np.where((hour >= 7) & (hour < 23), middle, 0.09)
    price = np.where((hour >= 16) & (hour < 21), peak, price)
    return np.where(weekend, np.where((hour >= 9) & (hour < 21), middle, 0.09), price)


def make_wholesale(demand: Mapping[str, FloatArray], pv_pu: FloatArray) -> FloatArray:
    """Make a synthetic, wholesale-like price out of the year's own net load [USD/kWh], shape (N_ROWS,).

    Net load is the demand of all classes less a solar fleet that yields a fifth of the year's energy. The price rises
    gently with the net load's rank and steeply in its highest hours, wanders by seeded noise, spikes some thirty times
    for one to three hours, mostly at high net load, and falls to nothing where the net load is lowest.
    """
    rng = np.random.default_rng([SEED, 3])
    load = np.zeros(N_ROWS)
    for name, share in SYSTEM_SHARE.items():
        of_class = np.mean([series for key, series in demand.items() if key.startswith(name)], axis=0)
        load += share * of_class / of_class.mean()
    net = load - SOLAR_SHARE * pv_pu / pv_pu.mean()
    rank = np.argsort(np.argsort(net)) / (N_ROWS - 1.0)
    price = 0.022 + 0.034 * rank + 0.050 * rank**8
    price *= np.exp(draw_noise(rng, 0.16, 1.5) + draw_noise(rng, 0.16, 36.0))
    price -= 0.045 * np.clip(1.0 - rank / 0.008, 0.0, 1.0)
    n_spikes = 30
    chance = rank**10 / np.sum(rank**10)
    for start in rng.choice(N_ROWS - 3 * ROWS_PER_HOUR, n_spikes, replace=False, p=_renormalise(chance)):
        length = int(rng.integers(ROWS_PER_HOUR, 3 * ROWS_PER_HOUR + 1))
        height = min(0.08 * (1.0 + rng.pareto(1.6)), 0.9)
        price[start : start + length] += height * np.sin(np.pi * (np.arange(length) + 0.5) / length)
    return np.clip(price, -0.02, 1.0)


def _renormalise(chance: FloatArray) -> FloatArray:
    kept = chance[: N_ROWS - 3 * ROWS_PER_HOUR]
    return np.asarray(kept / kept.sum(), dtype=np.float64)


# file ------------------------------------------------------------------------------------------------------------


def quantise(kind: str, values: FloatArray) -> npt.NDArray[Any]:
    """Round to the stored integer type of a kind of column; refuse what does not fit."""
    dtype, quantum = QUANTA[kind]
    counts = np.rint(values / quantum)
    limits = np.iinfo(dtype)
    if not np.isfinite(counts).all() or counts.min() < limits.min or counts.max() > limits.max:
        raise ValueError(f"{kind}: {values.min()} .. {values.max()} does not fit {dtype.__name__} by {quantum}")
    return counts.astype(dtype)


def write_archive(target: Path, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    """Write a ``.npz`` whose bytes depend on its content only (numpy stamps the time of day into its own)."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, array in arrays.items():
            buffer = io.BytesIO()
            np.lib.format.write_array(buffer, np.ascontiguousarray(array), allow_pickle=False)
            entry = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, buffer.getvalue(), compresslevel=9)


def make_archive(target: Path) -> None:
    """Make the whole year and write it."""
    with warnings.catch_warnings():  # what demandlib 0.2 and pvlib 0.16 still call under pandas 3.1
        warnings.filterwarnings("ignore", message="The inplace keyword", category=DeprecationWarning)
        warnings.filterwarnings("ignore", message="DatetimeIndex.dayofyear", category=DeprecationWarning)
        demand = make_demand()
        sun = make_sun()
    prices = {"time_of_use": make_time_of_use(), "wholesale": make_wholesale(demand, sun["pv_pu"])}
    meta = {
        "name": "builtin",
        "start": f"{YEAR}-01-01",
        "step_minutes": 15,
        "demand_names": list(demand),
        "tariffs": list(prices),
        "quanta": {kind: quantum for kind, (_, quantum) in QUANTA.items()},
        "made_with": {"pvlib": pvlib.__version__, "demandlib": demandlib.__version__, "numpy": np.__version__},
    }
    arrays: dict[str, npt.NDArray[Any]] = {
        "meta": np.frombuffer(json.dumps(meta, indent=1).encode(), dtype=np.uint8),
        # series by row: neighbours in time lie side by side, which deflates better
        "demand_pu": quantise("demand_pu", np.stack(list(demand.values()))),
        "price_usd_per_kwh": quantise("price_usd_per_kwh", np.stack(list(prices.values()))),
    }
    arrays |= {kind: quantise(kind, values) for kind, values in sun.items()}
    target.parent.mkdir(parents=True, exist_ok=True)
    write_archive(target, arrays)


def make_other_sun(target: Path) -> None:
    """Make the sun of other years and of another place, which a task of the benchmark plays, and write it."""
    with warnings.catch_warnings():  # as in make_archive
        warnings.filterwarnings("ignore", message="DatetimeIndex.dayofyear", category=DeprecationWarning)
        pv_pu = make_sun(read_other_weather)["pv_pu"]
    quantum = QUANTA["pv_pu"][1]
    counts = quantise("pv_pu", pv_pu)
    table = pd.DataFrame({"time": make_calendar(), "pv_pu": counts / round(1.0 / quantum)})
    # times lie evenly: their differences take no room
    how: dict[str, Any] = {
        "use_dictionary": ["pv_pu"],
        "column_encoding": {"time": "DELTA_BINARY_PACKED"},
        "compression_level": 19,
    }
    table.to_parquet(target, index=False, engine="pyarrow", compression="zstd", **how)


def main() -> None:
    """Make the file, by default in its place in the package."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="where to write (default: in the package)")
    parser.add_argument("--other-sun", action="store_true", help="make the sun of the benchmark's task instead")
    asked = parser.parse_args()
    target = asked.out or (OTHER_TARGET if asked.other_sun else DEFAULT_TARGET)
    (make_other_sun if asked.other_sun else make_archive)(target)
    print(f"{target}: {target.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
