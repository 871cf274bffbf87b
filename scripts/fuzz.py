"""Feed PowerGrid damaged and absurd input by the thousand, and list what ends in anything but a typed error.

``python scripts/fuzz.py --tries 10000`` takes minutes. A try is known by its kind and number and comes again with
``--only KIND --first NUMBER --tries 1``; CI plays a few hundred (tests/test_fuzz.py).
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import faulthandler
import io
import json
import shutil
import sys
import tempfile
import time
import traceback
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from damage import Random, damage_bytes, damage_data, nasty, places_of
from fuzz_models import try_import, try_model

import powergrid
from powergrid.envs import NetworkedGridEnv
from powergrid.errors import PowerGridError
from powergrid.evaluation import evaluate
from powergrid.scenario import load_scenario, scenario_from_config
from powergrid.scenario.bundle import Bundle
from powergrid.training import pack_env_config, ppo_config, resume
from powergrid.training.rllib.planning.facts import probe_env
from powergrid.training.runs.checkpoints import find_checkpoint, read_state
from powergrid.training.runs.records import ProgressFile, read_curves, read_manifest
from powergrid.training.runs.settings import ALIASES, SETTINGS, fields_of, make_settings
from powergrid.training.runs.train import check_plan
from powergrid.training.runs.tune import tune

ROOT = Path(__file__).parents[1]
RUN = ROOT / "tests" / "training" / "runs" / "data" / "run_010"
SCENARIOS = ("ieee13_mg", "ieee13_voltvar", "ieee34_ieee13", "ieee34_mg", "ieee123_mg")
#: Short, so that what is right by chance plays fast.
BASE: dict[str, Any] = {"env_name": "ieee13_mg", "episode_length": 4}
SLOW_S = 30.0

# -- the kinds of input


def _as_data(name: str) -> dict[str, Any]:
    data = yaml.safe_load((ROOT / "powergrid" / "scenarios" / f"{name}.yaml").read_text(encoding="utf-8"))
    return {**data, "episode_length": 4}


def _full(name: str) -> dict[str, Any]:
    """Return a scenario with every key of its vocabulary, what it leaves out as its default."""
    return {**load_scenario(name).to_dict(), "episode_length": 4}


def play(env: Any) -> None:
    """Reset and step an environment; what it gives is finite."""
    try:
        observations, _ = env.reset(seed=0)
        spaces = {agent: env.action_space(agent) if callable(env.action_space) else env.action_spaces[agent]
                  for agent in observations} if isinstance(observations, dict) else None  # fmt: skip
        actions = {a: s.sample() for a, s in spaces.items()} if spaces else env.action_space.sample()
        _, rewards, *_ = env.step(actions)
        given = np.array(list(rewards.values()) if isinstance(rewards, dict) else rewards, np.float64)
        if not np.isfinite(given).all():
            raise FloatingPointError(f"rewards {given}")
    finally:
        env.close()


def try_config(random: Random, folder: Path) -> None:
    """An ``env_config`` with values, keys and types that are none."""
    base: Any
    match random.randint(0, 6):
        case 0:
            base = nasty(random)
        case 1:
            base = {**BASE, random.choice(sorted(_full("ieee13_mg"))): nasty(random)}
        case 2:
            *path, last = random.choice(places_of(_full(random.choice(SCENARIOS))))
            base = {**BASE, ".".join(map(str, [*path, last])): nasty(random)}
        case 3:
            base = damage_data({"scenario": _as_data(random.choice(SCENARIOS))}, random)
        case 6:
            damaged = Bundle(random.choice(("", "0" * 64)), damage_bytes(Bundle.of({"a.yaml": b"x"}).archive, random))
            base = {**BASE, "bundle": random.choice((damaged, nasty(random)))}
        case 4:
            base = damage_data({"scenario": _full(random.choice(SCENARIOS[:3]))}, random)
        case _:
            extra = {"feeder": "ieee13", "discover": {"pv": True}, "add_der": {"penetration": 0.3, "sites": 2},
                     "agents": {"layout": "per_zone", "zones": 2}, "episode_length": 4,
                     "placement": {"rule": "load", "map": {"675": "800"}, "seed": 1}}  # fmt: skip
            base = damage_data(extra, random)
    match random.randint(0, 6):
        case 0:
            play(NetworkedGridEnv(base))
        case 1:
            play(powergrid.make(base if not isinstance(base, dict) else base.get("scenario", "ieee13_mg")))
        case 2:
            data = base.get("scenario", "ieee13_mg") if isinstance(base, dict) else base
            play(
                powergrid.make_central(
                    data, actions=random.choice(("auto", nasty(random))), levels=random.choice((5, nasty(random)))
                )
            )
        case 3:
            overrides = base if isinstance(base, dict) else {"load_scale": base}
            number = random.choice((1, 2, nasty(random)))
            workers = random.choice((None, nasty(random)))
            overrides = {str(k): v for k, v in overrides.items() if k not in ("env_name", "scenario")}
            powergrid.make_vector("ieee13_mg", number, workers=workers, **overrides).close()
        case 4:
            pack_env_config(base)
        case _:
            play(NetworkedGridEnv(base)) if random.random() < 0.3 else scenario_from_config(base)


_YAML_PIECES = (
    b"&a [*a]", b"*x", b"<<: *x", b"!!python/object:os.system ls", b"!!int x", b"!!float ", b"!!binary @", b"!!bool x",
    b"!!timestamp 2020-99-99", b"2020-99-99", b"!!set {a}", b"? [a, b]\n: c", b"? {a: b}\n: c", b"---\na: 1\n---\n",
    b"%YAML 9.9\n---\n", b"\xef\xbb\xbf", b"\xff\xfe", b"\0", b"1" * 6000, b".inf", b".nan", b"1e308", b"1:99:99", b"=",
    b"{" * 400, b"[" * 5000, b"- " * 3000, b"\t", b"'", b'"\\ud800"', b"|\n", b"a: " * 200, b"\xe9", b"0x" + b"f" * 400,
    b"x: &x {a: &y [1, 2]}\n", b"!!omap [a: 1]", b"!!pairs [a]", b"!<tag:x> 1", b"\xc2\x85", b"~",
)  # fmt: skip


def _bomb(random: Random) -> bytes:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, random.randint(2, 30))]
    key = random.choice(("taps", "devices", "description", "agents", "placement"))
    return ("\n".join([*lines, f"feeder: ieee13\n{key}: *a1"]) + "\n").encode()


def try_yaml(random: Random, folder: Path) -> None:
    """A scenario file with bytes that are none of it, in other encodings, or that grows where it is read."""
    name = random.choice(SCENARIOS)
    content = (ROOT / "powergrid" / "scenarios" / f"{name}.yaml").read_bytes()
    for _ in range(random.choice((1, 1, 2))):
        match random.randint(0, 6):
            case 0:
                content = content.decode("utf-8", "ignore").encode(
                    random.choice(("utf-16", "utf-16-le", "cp1252", "utf-8-sig", "utf-32")), "replace"
                )
            case 1:
                content = _bomb(random)
            case 2 | 3:
                lines = content.split(b"\n")
                at = random.randrange(len(lines))
                piece = random.choice(_YAML_PIECES)
                lines[at : at + random.randint(0, 1)] = [
                    random.choice((piece, lines[at].partition(b":")[0] + b": " + piece))
                ]
                content = b"\n".join(lines)
            case _:
                content = damage_bytes(content, random)
    file = folder / "scenario.yaml"
    file.write_bytes(content)
    load_scenario(file)


def _table(random: Random) -> pd.DataFrame:
    rows = random.choice((0, 1, 23, 24, 24, 48, 96))
    times = pd.date_range("2018-01-01", periods=rows, freq="h")
    values = np.linspace(0.1, 1.0, rows)
    return pd.DataFrame(
        {"time": times, "demand_pu:a": values, "load_pu:b": values, "pv_pu": values, "irradiance_pu": values,
         "temperature_c": values * 20, "price_usd_per_kwh:flat": values}
    )  # fmt: skip


def try_profiles(random: Random, folder: Path) -> None:
    """A table of series with cells, columns, rows and bytes that are none."""
    frame = _table(random)
    for _ in range(random.choice((0, 1, 1, 2, 3))):
        column = random.choice(list(frame.columns)) if len(frame.columns) else "time"
        match random.randint(0, 6):
            case 0 if len(frame):
                value = random.choice(
                    (None, "x", float("inf"), float("nan"), 1e308, -1, "2018-13-01", True, "1,5", "", b"x")
                )
                with contextlib.suppress(ValueError, LookupError, pd.errors.InvalidIndexError):  # it is there twice
                    frame[column] = frame[column].astype(object)
                    frame.loc[random.randrange(len(frame)), column] = value
            case 1:
                frame = frame.drop(columns=[column])
            case 2:
                name = random.choice(("", "x", 1, None, "demand_pu:", "price_usd_per_kwh", "time", ("a", "b"), "PV_PU"))
                frame = frame.rename(columns={column: name})
            case 3:
                frame = frame.sample(frac=random.choice((0.5, 1.0)), random_state=random.randrange(10))
            case 4:
                frame[column] = pd.Series(
                    [random.choice((1e308, -1e9, float("nan"), 5e-324, 1e12))] * len(frame), dtype=float
                )
            case 5:
                frame = pd.concat([frame, frame[[column]]], axis=1) if column in frame else frame
            case _:
                frame.index = pd.Index([random.random() for _ in range(len(frame))])
    source: Any = frame
    if random.random() < 0.6:
        suffix = random.choice((".csv", ".csv", ".csv.gz", ".parquet"))
        file = folder / f"table{suffix}"
        try:
            if suffix == ".parquet":
                frame.to_parquet(file)
            else:
                frame.to_csv(file, index=False, sep=random.choice((",", ",", ";", "\t")))
        except Exception:  # noqa: BLE001 (pandas cannot write this one)
            file.write_bytes(random.randbytes(200))
        if random.random() < 0.7:
            file.write_bytes(damage_bytes(file.read_bytes(), random))
        source = random.choice((file, str(file)))
    elif random.random() < 0.2:
        source = nasty(random)
    settings = {**BASE, "profiles": {"source": source, "load_classes": {}, "tariff": "flat"}}
    if random.random() < 0.5:
        scenario_from_config(settings).read_profiles()
    else:
        play(NetworkedGridEnv(settings))


def _damage_files(folder: Path, random: Random) -> None:
    """Damage, drop, swap or link some files below a folder."""
    for _ in range(random.choice((1, 1, 2, 4))):
        files = sorted(file for file in folder.rglob("*") if file.is_file())
        if not files:
            return
        file, other = random.choice(files), random.choice(files)
        match random.randint(0, 9):
            case 0:
                file.unlink()
            case 1:
                shutil.copy(other, file) if file != other else None
            case 2:
                file.unlink()
                file.mkdir()
            case 3:
                file.unlink()
                file.symlink_to(random.choice(("/dev/zero", "nowhere", file.name, "/etc/hostname", "..")))
            case 4:
                shutil.rmtree(file.parent) if file.parent != folder else file.unlink()
            case 5 | 6 if file.suffix == ".json":
                try:
                    data = json.loads(file.read_bytes())
                except (ValueError, RecursionError):  # damaged before
                    data = {}
                with contextlib.suppress(RuntimeError, ValueError):  # what no JSON holds: it stays as it was
                    file.write_text(json.dumps(damage_data(data, random), default=str, skipkeys=True))
            case 7 if file.suffix == ".npz" and zipfile.is_zipfile(file):
                with contextlib.suppress(Exception):  # damaged before
                    _damage_arrays(file, random)
            case _:
                file.write_bytes(damage_bytes(file.read_bytes(), random))


def _damage_arrays(file: Path, random: Random) -> None:
    with np.load(file) as archive:
        arrays = dict(archive)
    name = random.choice(sorted(arrays))
    match random.randint(0, 7):
        case 0:
            arrays[name] = arrays[name].copy()
            arrays[name].flat[0] = random.choice((np.nan, np.inf, 1e38))
        case 1:
            arrays[name] = arrays[name].T.copy()
        case 2:
            arrays[name] = arrays[name].astype(
                random.choice((np.int8, np.complex64, np.float16, np.float64, "U5", bool))
            )
        case 3:
            arrays[name] = np.array([{}, None], dtype=object)
        case 4:
            del arrays[name]
        case 5:
            arrays[name] = np.zeros(random.choice(((), (0,), (1,), (3, 3, 3), (1, 5000))), np.float32)
        case 6:
            arrays[random.choice(sorted(arrays))] = arrays[name]
        case _:
            out = io.BytesIO()
            np.lib.format.write_array_header_1_0(
                out, {"descr": "<f4", "fortran_order": False, "shape": (random.choice((10**6, 10**12, -1)), 2**20)}
            )
            with zipfile.ZipFile(file, "w") as archive:
                archive.writestr(f"{name}.npy", out.getvalue())
            return
    np.savez(file, **arrays)


def try_run(random: Random, folder: Path) -> None:
    """A run folder with damaged records, checkpoints and policy."""
    run = Path(shutil.copytree(RUN, folder / "run"))
    _damage_files(run, random)
    match random.randint(0, 6):
        case 0:
            read_manifest(run)
        case 1:
            read_curves([run], random.choice(("episode_return_mean", "env_steps")))
        case 2:
            read_state(find_checkpoint(run, ("latest",)))
        case 3:
            resume(run, iterations=2)  # refused, for a copy is not ours, before Ray is started
        case 4:
            ProgressFile(run / "progress.csv", after_iteration=1).add({"iteration": 2, "env_steps": 1.0})
        case _:
            act(powergrid.load_policy(random.choice((run, str(run), run / "checkpoints" / "iteration_000001"))))


def try_policy(random: Random, folder: Path) -> None:
    """A policy folder with damaged networks, spaces, names and arrays."""
    place = Path(shutil.copytree(RUN / "checkpoints" / "iteration_000001" / "policy", folder / "policy"))
    _damage_files(place, random)
    act(powergrid.load_policy(place, backend=random.choice(("numpy", "numpy", "torch"))))


def act(policy: Any) -> None:
    """Let a policy act; its actions are finite."""
    for agent, name in policy.policy_of.items():
        width = policy.networks[name].weights[0].shape[1]
        fit = policy.fits.get(agent)
        actions = policy.act({agent: np.zeros(fit.own_width if fit else width, np.float32)})
        if not all(np.isfinite(np.asarray(part)).all() for part in _parts(actions[agent])):
            raise FloatingPointError(f"actions {actions}")


def _parts(action: Any) -> list[Any]:
    return list(action.values()) if isinstance(action, dict) else [action]


def try_settings(random: Random, folder: Path) -> None:
    """Settings of training, names and arguments of other functions that are none."""
    algorithm = random.choice(list(SETTINGS))
    names = random.sample([*fields_of(algorithm), *ALIASES, "preset"], 2)
    given: Any = {name: nasty(random) for name in names}
    match random.randint(0, 8):
        case 8:
            asked_for: Any = random.choice((BASE, BASE, nasty(random)))
            ppo_config(asked_for, policies=random.choice(("shared", nasty(random))), **given)
        case 0:
            make_settings(random.choice((algorithm, nasty(random))), nasty(random))
        case 1:
            asked: Any = random.choice(("ieee13_mg", nasty(random)))
            evaluate(
                asked, random.choice((["no_control"], [nasty(random)], nasty(random))),
                split=random.choice(("test", nasty(random))), days=random.choice((1, nasty(random))),
                seed=random.choice((0, nasty(random))),
            ) if random.random() < 0.2 else None  # fmt: skip
        case 2:
            env = powergrid.make("ieee13_mg", episode_length=4)
            try:
                env.reset(seed=nasty(random), options=random.choice((None, {"day": nasty(random)}, nasty(random))))
                env.step(random.choice((nasty(random), {a: nasty(random) for a in env.agents})))
            finally:
                env.close()
        case 3:
            facts = BASE if random.random() < 0.5 else nasty(random)
            shared = random.choice(("shared", nasty(random)))
            check_plan("training", probe_env(NetworkedGridEnv, facts), shared, make_settings("ppo"))
        case 4:
            searched: Any = random.choice((nasty(random), [nasty(random)], ["lr=1..x"], ["lr=[1e400, nan]"]))
            tune("ieee13_mg", {}, search=searched, samples=1, out_dir=folder, env=_NeverBuilt)
        case _:
            name: Any = random.choice((random.choice(names), "x", 1, None))
            make_settings(algorithm, {**given, name: nasty(random)})


def _NeverBuilt(config: Any) -> Any:  # noqa: N802 (stands for a class)
    raise PowerGridError("far enough: what is wrong with the settings was told before")


KINDS: dict[str, Callable[[Random, Path], None]] = {
    "config": try_config,
    "yaml": try_yaml,
    "profiles": try_profiles,
    "run": try_run,
    "policy": try_policy,
    "settings": try_settings,
    "import": try_import,
    "model": try_model,
}


def play_try(kind: str, number: int, folder: Path) -> str:
    """Play one try; return ``valid``, the name of the typed error, or the traceback of what it should not be."""
    place = folder / f"{kind}-{number}"
    place.mkdir()
    began = time.monotonic()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            KINDS[kind](Random(f"{kind} {number}"), place)
        told = "valid"
    except PowerGridError as error:
        told = type(error).__name__
        if not str(error).strip():
            told = f"an empty {told}"
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        told = "".join(traceback.format_exception(error, limit=-6))
    finally:
        shutil.rmtree(place, ignore_errors=True)
    took_s = time.monotonic() - began
    return f"{told}\ntook {took_s:.0f} s" if took_s > SLOW_S else told


def main() -> int:
    """Play tries of every kind in turn, print what failed and how many there were of each outcome."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tries", type=int, default=1000, help="in all, dealt out to the kinds")
    parser.add_argument("--first", type=int, default=0, help="number of the first try of each kind")
    parser.add_argument("--only", choices=[*KINDS], help="one kind alone")
    given = parser.parse_args()
    faulthandler.enable()
    kinds = [given.only] if given.only else [*KINDS]
    outcomes: collections.Counter[str] = collections.Counter()
    failed = 0
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="pg-fuzz-") as folder:
        for number in range(given.first, given.first + max(1, given.tries // len(kinds))):
            for kind in kinds:
                faulthandler.dump_traceback_later(20 * SLOW_S, exit=True)
                told = play_try(kind, number, Path(folder))
                faulthandler.cancel_dump_traceback_later()
                wrong = "\n" in told or told.startswith("an empty")
                failed += wrong
                outcomes[f"{kind}: {'FAILED' if wrong else told}"] += 1
                if wrong:
                    print(f"== {kind} {number}\n{told}", flush=True)
    for outcome, count in sorted(outcomes.items()):
        print(f"{count:7d} {outcome}")
    print(f"{outcomes.total()} tries in {time.monotonic() - began:.0f} s, {failed} neither valid nor a typed error")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
