"""Write a trained policy for other programs: one ONNX or TorchScript file an agent, and a JSON that says what is what.

The file takes the observations that the environment gives and gives the actions that it takes, deterministic,
filters and scaling included. It trains nothing, starts no Ray and unpickles nothing.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import gymnasium as gym
import numpy as np

import powergrid
from powergrid.errors import PowerGridError, describe_unknown
from powergrid.training.policies.inference import POLICY_FILE, Policy, load_policy
from powergrid.training.policies.spaces import position_counts
from powergrid.training.runs.checkpoints import STATE_FILE, find_checkpoint, is_ours, trust_claims
from powergrid.training.runs.records import read_manifest
from powergrid.training.runs.train import import_env

INTERFACE_FILE = "interface.json"
SUFFIXES = {"onnx": ".onnx", "torchscript": ".pt"}
OPSET = 17  # what runtimes since 2022 read
OUR_ENV = "powergrid.envs.networked:NetworkedGridEnv"
INPUT = "observation"
HOW_TO_SCALE = {
    "observations": "entry = clip(2 * (value - low) / (high - low) - 1, -1, 1)",
    "actions": "value = low + (entry + 1) / 2 * (high - low) where n is null; else the entry is a position 0..n-1",
}


def export_run(
    run_or_checkpoint: str | Path,
    folder: str | Path,
    *,
    format: Literal["onnx", "torchscript"] = "onnx",
    trust: bool = False,
) -> list[Path]:
    """Write a trained policy as ONNX or TorchScript, with ``interface.json``.

    Args:
        run_or_checkpoint: A run folder (its best checkpoint, else its latest), a checkpoint, or a folder written by
            :func:`powergrid.training.export_policy`.
        folder: Where the files go; it is made.
        format: ``"onnx"`` needs the package onnx, ``"torchscript"`` torch.
        trust: Import the environment that a run of someone else names, to describe what its agents see.

    Returns:
        The files: one for each agent, then ``interface.json``.

    Raises:
        PowerGridError: There is no policy, or the format is unknown or its package missing.
    """
    if format not in SUFFIXES:
        raise PowerGridError(describe_unknown("format", str(format), SUFFIXES))
    policy = load_policy(run_or_checkpoint)
    if policy.fits:
        raise PowerGridError(
            f"{run_or_checkpoint}: a policy that translates between spaces (share_unequal, or dqn and sac on other "
            "than their own) cannot be exported; powergrid.load_policy acts by it"
        )
    tables, target = describe_run(Path(run_or_checkpoint).expanduser(), trust=trust), Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    write = write_onnx if format == "onnx" else write_torchscript
    agents: dict[str, Any] = {}
    for agent, name in policy.policy_of.items():
        file = f"{agent}{SUFFIXES[format]}"
        told = _interface(policy, agent, tables)
        outputs = [output["name"] for output in told["outputs"]]
        write(torch_actor(policy, agent), told["input"]["shape"][1], outputs, target / file)
        agents[agent] = {"file": file, "policy": name, **told}
    interface = {
        "format": format,
        "powergrid": powergrid.__version__,
        "scenario": tables.get("scenario"),
        "checkpoint": tables.get("checkpoint"),
        "scaling": HOW_TO_SCALE,
        "agents": agents,
    }
    (target / INTERFACE_FILE).write_text(json.dumps(interface, indent=1, allow_nan=False) + "\n")
    return [*(target / told["file"] for told in agents.values()), target / INTERFACE_FILE]


def describe_run(run_or_checkpoint: Path, *, trust: bool = False) -> dict[str, Any]:
    """Return what each agent observes and does, from the environment that a run was trained on.

    Returns:
        ``scenario``, ``checkpoint``, and where the environment can describe itself ``observations`` and ``actions``,
        each a list of rows by agent. Empty for a policy that belongs to no run.
    """
    if (run_or_checkpoint / POLICY_FILE).is_file() and not (run_or_checkpoint / STATE_FILE).is_file():
        return {}
    try:
        checkpoint = find_checkpoint(run_or_checkpoint)
        manifest = read_manifest(checkpoint.parent.parent)
    except PowerGridError:  # a checkpoint outside of a run
        return {}
    told: dict[str, Any] = {"scenario": manifest["scenario"], "checkpoint": checkpoint.name}
    if manifest["env"] != OUR_ENV and not trust and not is_ours(checkpoint, trust_claims(manifest)):
        return told
    env: Any = import_env(manifest["env"])(dict(manifest["env_config"]))
    try:
        if hasattr(env, "describe"):
            description = env.describe()
            for table in ("observations", "actions"):
                told[table] = _rows_by_agent(getattr(description, table))
    finally:
        env.close()
    return told


def _rows_by_agent(frame: Any) -> dict[str, list[dict[str, Any]]]:
    by_agent = frame.groupby("agent", sort=False)
    return {agent: json.loads(rows.drop(columns="agent").to_json(orient="records")) for agent, rows in by_agent}


def _interface(policy: Policy, agent: str, tables: Mapping[str, Any]) -> dict[str, Any]:
    """Say what an agent's file takes and gives; units and bounds where the environment told them."""
    space, width = policy.action_spaces[agent], policy.networks[policy.policy_of[agent]].weights[0].shape[1]
    outputs = space.spaces if isinstance(space, gym.spaces.Dict) else {"action": space}
    seen, done = (tables.get(table, {}).get(agent) for table in ("observations", "actions"))
    named = {"continuous", "discrete"} if len(outputs) > 1 else set()
    return {
        "input": {"name": INPUT, "shape": ["n", width], "dtype": "float32"},
        "outputs": [_describe_output(name, space) for name, space in outputs.items()],
        "observations": seen or [{"position": i} for i in range(width)],
        "actions": [
            {
                "output": row["part"] if row["part"] in named else next(iter(outputs)),
                **{name: value for name, value in row.items() if name != "part"},
            }
            for row in done or ()
        ],
    }


def _describe_output(name: str, space: gym.Space[Any]) -> dict[str, Any]:
    if isinstance(space, gym.spaces.Box):
        bounds = {name: [_finite(x) for x in np.ravel(getattr(space, name)).tolist()] for name in ("low", "high")}
        return {"name": name, "shape": ["n", *space.shape], "dtype": "float32", **bounds}
    sizes = position_counts(space)
    shape = ["n"] if isinstance(space, gym.spaces.Discrete) else ["n", len(sizes)]
    return {"name": name, "shape": shape, "dtype": "int64", "n": sizes}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def write_onnx(actor: Any, width: int, names: Sequence[str], file: Path) -> None:
    """Write an actor as an ONNX graph of standard operators, through torch's own exporter.

    Raises:
        PowerGridError: The package onnx is not installed.
    """
    try:
        import onnx
    except ImportError as error:
        raise PowerGridError("to write ONNX, install the package onnx: pip install 'powergrid-dss[export]'") from error
    import torch

    with warnings.catch_warnings():
        # torch would rather go through torch.export, which takes the package onnxscript and writes opset 18 and newer:
        # runtimes of 2022, which controllers in the field have, do not read it
        warnings.simplefilter("ignore")
        torch.onnx.export(
            actor,
            (torch.zeros(2, width),),
            str(file),
            input_names=[INPUT],
            output_names=list(names),
            dynamic_axes={name: {0: "n"} for name in (INPUT, *names)},
            opset_version=OPSET,
            dynamo=False,
        )
    onnx.checker.check_model(onnx.load(str(file)), full_check=True)


def write_torchscript(actor: Any, width: int, names: Sequence[str], file: Path) -> None:
    """Write an actor as TorchScript; a Dict space's parts come as a tuple, in the order of ``names``."""
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch deprecates the format; devices in the field still read it
        traced: Any = torch.jit.trace(actor, torch.zeros(2, width), check_trace=False)  # type: ignore[no-untyped-call]
        torch.jit.save(traced, str(file))


def torch_actor(policy: Policy, agent: str) -> Any:
    """Return a torch module that computes what :meth:`Policy.act_batch` does, filters and scaling included."""
    import torch

    class Module(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = policy.networks[policy.policy_of[agent]].torch_module()

        def forward(self, observation: Any) -> Any:
            actions = policy.decide(agent, observation, self.layers, torch)
            parts = tuple(actions.values()) if isinstance(actions, dict) else (actions,)
            return parts[0] if len(parts) == 1 else parts

    return Module().eval()
