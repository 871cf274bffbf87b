"""Start and resume training runs: what is asked for is checked and becomes a run folder; the loop itself is in loop."""

from __future__ import annotations

import json
import logging
import secrets
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from powergrid.errors import ScenarioError, describe_unknown
from powergrid.files import make_folder, path_of, real_path, sole_use, write_whole
from powergrid.rules import PLAYED
from powergrid.scenario import as_env_config, name_version, scenario_from_config
from powergrid.scenario.demonstrations import read_demonstrations
from powergrid.training.policies.spaces import box_size, position_counts
from powergrid.training.rllib.planning.env_config import EnvClass, default_env, draw_hard_days, show_proposals
from powergrid.training.rllib.planning.facts import EnvFacts, probe_env
from powergrid.training.rllib.planning.policies import Policies
from powergrid.training.rllib.planning.problems import plan_policies
from powergrid.training.runs.checkpoints import FOLDER, find_checkpoint, read_state, require_trust, trust_claims
from powergrid.training.runs.loop import Plan, Progress, RunResult, open_validation, run_loop
from powergrid.training.runs.records import end_killed_session, env_path, import_env, read_manifest
from powergrid.training.runs.settings import (
    PRESETS,
    OffPolicySettings,
    TrainSettings,
    dump_settings,
    make_settings,
    settings_of_run,
)

__all__ = ["RunResult", "resume", "train"]

logger = logging.getLogger("powergrid.training")

_How = tuple[float | None, Progress | None, bool, str | None]  # time limit, progress, verbose and address


def train(
    scenario: str | Path | Mapping[str, Any],
    settings: TrainSettings | Mapping[str, Any] | None = None,
    *,
    algorithm: str = "ppo",
    policies: Policies = "shared",
    out_dir: str | Path = "runs",
    name: str | None = None,
    time_limit_s: float | None = None,
    progress: Progress | None = None,
    verbose: bool = False,
    address: str | None = None,
    env: EnvClass | None = None,
) -> RunResult:
    """Train on a scenario and leave a run folder that says how.

    Args:
        scenario: A scenario's name or path, or an env_config.
        settings: Settings of the algorithm; those left out have their defaults, or what ``preset`` says. Where it is
            not named, policies of PPO and MAPPO on powergrid's own environment learn what to add to the rules
            (``"residual"``) where each agent decides more numbers than positions, imitate them
            (``"imitate"``) where there is telemetry as well, and learn from scratch (``"fast"``) elsewhere.
        algorithm: ``"ppo"``, ``"mappo"``, ``"sac"`` or ``"dqn"``.
        policies: ``"shared"``, ``"independent"`` or a mapping from agent to policy name.
        out_dir: Where run folders go.
        name: The run folder's name; by default the scenario's name and the time.
        time_limit_s: Stop after the iteration that passes this time [s], of this session from its start.
        progress: Called after each iteration.
        verbose: Show what Ray and its workers print.
        address: Train on the Ray cluster there, ``HOST:PORT`` of its head or ``auto``, and leave it running.
        env: The environment's class; by default :class:`powergrid.envs.NetworkedGridEnv`.

    Raises:
        ScenarioError: The scenario, a setting or the policies are wrong.
        PowerGridError: Training could not go on, another one is at work in the folder, or it cannot be written.
    """
    chosen, env = make_settings(algorithm, settings), env or default_env()
    _require_demonstrations(chosen)
    env_config = show_proposals(env, as_env_config(scenario), chosen)
    facts = probe_env(env, env_config, step=True)
    asked = None if isinstance(settings, TrainSettings) else dict(settings or {})
    began = None if asked is None else _begin_as_rules(algorithm, asked, chosen, env, facts)
    if began is not None:
        chosen, env_config = began, show_proposals(env, env_config, began)
        facts = probe_env(env, env_config, step=True)
    if chosen.seed is None:
        chosen = chosen.model_copy(update={"seed": secrets.randbelow(2**31)})
    policy_of = check_plan("training", facts, policies, chosen)
    if chosen.hard_days:
        env_config = draw_hard_days(env, env_config, chosen)
        facts = replace(facts, scenario=scenario_from_config(env_config))
    taken = "a run is there already; resume it or choose another name"
    manifest: dict[str, Any] = {
        "scenario": scenario_name(env_config), "scenario_version": _version(facts.scenario), "env": env_path(env),
        "env_config": env_config, "algorithm": algorithm, "policies": policy_of, "settings": dump_settings(chosen),
        "digests": _digests(facts.scenario), "sessions": [],
    }  # fmt: skip
    with claim(out_dir, name, scenario_name(env_config), taken_by=FOLDER, remedy=taken) as folder:
        validation = open_validation(env, manifest, chosen)
        write_whole(folder / "scenario.yaml", _scenario_yaml(facts.scenario, env_config))
        how = (time_limit_s, progress, verbose, address)
        return run_loop(Plan(folder, manifest, chosen, env, facts, validation, *how))


def _begin_as_rules(
    algorithm: str, asked: Mapping[str, Any], chosen: TrainSettings, env: EnvClass, facts: EnvFacts
) -> TrainSettings | None:
    """Return settings by which policies begin as rules do, where what is asked for leaves that open; else None.

    They add to what rules do, or where telemetry keeps back what rules see imitate them. For positions
    the rules are a poor start.
    """
    said = asked.get("preset") is not None or chosen.demonstrations is not None or chosen.proposals is not None
    if said or isinstance(chosen, OffPolicySettings) or env is not default_env() or facts.scenario.feeders:
        return None
    if any(box_size(space) <= len(position_counts(space)) for space in facts.action_spaces.values()):
        return None
    preset = "residual" if facts.scenario.telemetry is None else "imitate"
    alike = PRESETS[preset].get("envs_per_day", 1)
    beside = {"envs_per_day": 1} if (chosen.num_envs_per_env_runner or alike) % alike else {}
    with suppress(ScenarioError):  # what is asked for does not go with it
        return make_settings(algorithm, {"preset": preset, **beside, **asked})
    return None


def _require_demonstrations(settings: TrainSettings) -> None:
    """Tell what is wrong with what shall be imitated before Ray is started.

    Raises:
        ScenarioError: It is neither a folder nor a baseline whose days a training plays by itself.
        PowerGridError: The folder holds no demonstrations, or damaged ones.
    """
    shown = settings.demonstrations
    if shown is None or shown in PLAYED:
        return
    if not path_of(shown).is_dir():
        told = f"demonstrations: {describe_unknown('baseline', shown, PLAYED)}, and no folder of that name is there"
        raise ScenarioError("training settings", [f"{told}; `powergrid demonstrate` records days of other baselines"])
    read_demonstrations(shown)


def resume(
    run_dir: str | Path,
    *,
    iterations: int | None = None,
    settings: Mapping[str, Any] | None = None,
    time_limit_s: float | None = None,
    progress: Progress | None = None,
    verbose: bool = False,
    address: str | None = None,
    trust: bool = False,
) -> RunResult:
    """Go on with a run from its latest checkpoint: weights, optimiser, filters, counters and files.

    RLlib's part of a checkpoint is unpickled and the run's environment imported: code from the run folder is run.

    Args:
        run_dir: The run folder.
        iterations: Iterations the run shall have in all; by default what it was started with.
        settings: Settings that differ from now on, for example ``num_env_runners``.
        time_limit_s: As ``progress``, ``verbose`` and ``address`` it is what :func:`train` takes.
        trust: Go on although this user did not make the checkpoint on this machine.

    Raises:
        ScenarioError: The run has all its iterations already, or a setting is wrong.
        PowerGridError: There is no run or no checkpoint, it comes from elsewhere and is not trusted, or another
            training is at work in its folder.
    """
    checkpoint = find_checkpoint(real_path(run_dir), ("latest",))
    read_manifest(checkpoint.parent.parent)  # of a folder that is no run, nothing is to be held
    with sole_use(checkpoint.parent.parent):
        changes = dict(settings or {}) | ({} if iterations is None else {"iterations": iterations})
        return _resume(checkpoint, changes, (time_limit_s, progress, verbose, address), trust=trust)


def _resume(checkpoint: Path, changes: Mapping[str, Any], how: _How, *, trust: bool) -> RunResult:
    folder = checkpoint.parent.parent
    manifest = end_killed_session(folder, read_manifest(folder))
    if not trust:
        require_trust(
            checkpoint, trust_claims(manifest), remedy="--resume with --trust-checkpoint, or resume(..., trust=True)"
        )
    algorithm = manifest.get("algorithm", "ppo")
    chosen = make_settings(algorithm, changes, base=settings_of_run(algorithm, manifest["settings"]))
    state = read_state(checkpoint)
    if chosen.iterations <= state["iteration"]:
        done = f"the run has {state['iteration']} iterations already; to go on, ask for more than that in all"
        raise ScenarioError(str(folder), [done])
    env = import_env(manifest["env"])
    facts = probe_env(env, manifest["env_config"], step=True)
    if _digests(facts.scenario) != manifest["digests"]:
        logger.warning("The scenario has changed since this run began; compare scenario.yaml in the run folder.")
    manifest["settings"] = dump_settings(chosen)
    validation = open_validation(env, manifest, chosen)
    return run_loop(Plan(folder, manifest, chosen, env, facts, validation, *how, checkpoint, state))


def check_plan(
    asked: str, facts: EnvFacts, policies: Policies, settings: TrainSettings, problems: Iterable[str] = ()
) -> dict[str, str]:
    """Return the policy of each agent of an environment, before Ray is started for them.

    Raises:
        ScenarioError: All that does not go, ``problems`` found before among it, under what was ``asked`` for.
    """
    policy_of, wrong = plan_policies(facts, policies, settings)
    wrong += problems
    if wrong:
        raise ScenarioError(asked, wrong)
    for line in [] if facts.scenario is None else facts.scenario.find_free_moves():
        logger.warning("%s", line)
    return policy_of


@contextmanager
def claim(out_dir: str | Path, name: str | None, default: str, *, taken_by: str, remedy: str) -> Iterator[Path]:
    """Make the folder that a run or a tuning shall have and hold it for the block, for nobody else to write there.

    A folder that was made for a block which then wrote nothing that lasts (``taken_by``) goes again.

    Raises:
        ScenarioError: The name is no folder's, or ``taken_by`` is in that folder.
        PowerGridError: Another training or tuning is at work there, or it cannot be made.
    """
    if name is not None and (Path(name).name != name or name in {".", ".."}):
        raise ScenarioError("name", [f"{name!r} is no folder name; use --out for the place"])
    folder = real_path(Path(out_dir) / (name or f"{default}-{datetime.now():%Y%m%d-%H%M%S}"))
    if name is None and folder.exists():
        folder = folder.with_name(f"{folder.name}-{secrets.token_hex(2)}")
    is_new = not folder.exists()
    make_folder(folder)
    with sole_use(folder):
        if (folder / taken_by).exists():
            raise ScenarioError(str(folder), [remedy])
        try:
            yield folder
        finally:
            if is_new and not (folder / taken_by).exists():
                shutil.rmtree(folder, ignore_errors=True)


def scenario_name(env_config: Mapping[str, Any]) -> str:
    """Return the name that folders of runs on a scenario begin with."""
    path = Path(str(env_config.get("env_name", env_config.get("feeder", "run"))))
    return (path.parent.name if path.name == "Master.dss" else path.stem) or "run"


def _scenario_yaml(scenario: Any, env_config: Mapping[str, Any]) -> str:
    if hasattr(scenario, "to_yaml"):
        return str(scenario.to_yaml())
    return str(yaml.safe_dump(json.loads(json.dumps(dict(env_config), default=str)), sort_keys=False))


def _version(scenario: Any) -> str | None:
    return name_version(scenario) if hasattr(scenario, "versioned_name") else None


def _digests(scenario: Any) -> dict[str, Any]:
    """Return the SHA-256 of the scenario, of its feeder's files, of all its feeders by name, and of its profiles."""
    if not hasattr(scenario, "digest"):
        return {}
    return {
        "scenario": scenario.digest(),
        "feeder": scenario.read_feeder().digest,
        "feeders": scenario.feeder_digests(),
        "profiles": scenario.read_profiles().digest(),
    }
