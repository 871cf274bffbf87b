"""What a model lets an element do is what its device may ask, and what is asked is what the grid delivers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from powergrid.envs import NetworkedGridEnv

HEAD = """
Clear
New Circuit.rated basekv=12.47 pu=1.03 mvasc3=400 mvasc1=350
New Line.a bus1=sourcebus bus2=b r1=0.3 x1=0.6 c1=0 c0=0 length=2 units=km normamps=300
New Load.l bus1=b kv=12.47 kw=1500 kvar=500
"""
TAIL = """
Set VoltageBases=[12.47]
CalcVoltageBases
"""
REACTIVE = {"q_inject_max_kvar": None, "q_absorb_max_kvar": None}
#: An element, and what its device says of itself.
ELEMENTS: dict[str, tuple[str, dict[str, Any]]] = {
    "PVSystem kva=500 pmpp=500 %pmpp=60": ("inverter", {"p_max_kw": 500, "p_limit_kw": 300, **REACTIVE}),
    "PVSystem kva=300 pmpp=500": ("inverter", {"s_max_kva": 300, "p_limit_kw": None}),
    "PVSystem pmpp=4": ("inverter", {"p_max_kw": 4, "s_max_kva": None}),
    "PVSystem kva=500 pmpp=400 kvarmax=100 kvarmaxabs=60": (
        "inverter", {"q_inject_max_kvar": 100, "q_absorb_max_kvar": 60}
    ),
    "PVSystem kva=500 pmpp=400 kvarmax=100": ("inverter", {"q_inject_max_kvar": 100, "q_absorb_max_kvar": 100}),
    "PVSystem kva=500 pmpp=400 kvarmaxabs=60": ("inverter", {"q_inject_max_kvar": None, "q_absorb_max_kvar": 60}),
    "PVSystem kva=500 pmpp=400 kvarmax=0": ("inverter", {"reactive": "none"}),
    "PVSystem kva=500 pmpp=400 %pminnovars=50 %cutin=30 %cutout=30 model=2": ("inverter", REACTIVE),
    "Storage kwrated=400 kva=450 kwhrated=1000 %charge=25 %discharge=50": (
        "storage", {"p_max_kw": 200, "p_charge_max_kw": 100, "s_max_kva": 450, "standby_loss_kw": 4}
    ),
    "Storage kwrated=400 kva=450 kwhrated=1000 %kwrated=50": ("storage", {"p_max_kw": 200, "p_charge_max_kw": None}),
    "Storage kwrated=400 kva=300 kwhrated=1000": ("storage", {"p_max_kw": 300, "s_max_kva": 300}),
    "Storage kwrated=300 kwhrated=900 %idlingkw=2": ("storage", {"s_max_kva": 300, "standby_loss_kw": 6, **REACTIVE}),
    "Storage kwrated=300 kva=400 kwhrated=900 kvarmax=80 kvarmaxabs=50 model=2": (
        "storage", {"q_inject_max_kvar": 80, "q_absorb_max_kvar": 50}
    ),
    "Storage kwrated=300 kva=400 kwhrated=900 kw=30": ("storage", {"p_max_kw": 300}),
    "Generator kw=500 kva=600 maxkvar=90 minkvar=-40": (
        "generator", {"q_inject_max_kvar": 90, "q_absorb_max_kvar": 40, "p_max_kw": 500, "s_max_kva": 600}
    ),
    "Generator kw=300 pf=-.9": ("generator", REACTIVE),
}  # fmt: skip


def make(folder: Path, element: str, **more: Any) -> NetworkedGridEnv:
    class_name, _, said = element.partition(" ")
    path = folder / "Master.dss"
    path.write_text(f"{HEAD}New {class_name}.x bus1=b kv=12.47 {said}{TAIL}")
    return NetworkedGridEnv({"feeder": str(path), "solver": {"tolerance": 1e-10}, **more})


@pytest.mark.parametrize(("element", "kind", "keys"), [(e, *expected) for e, expected in ELEMENTS.items()])
def test_device_of_an_element_may_do_what_the_model_says(
    tmp_path: Path, element: str, kind: str, keys: dict[str, Any]
) -> None:
    env = make(tmp_path, element)
    (spec,) = env.scenario.devices.values()
    assert spec.kind == kind
    assert {key: getattr(spec, key) for key in keys} == pytest.approx(keys)
    env.reset(seed=0, options={"day": 171})
    simulation, (agent,) = env.task.simulation, env.agents
    rng = np.random.default_rng(0)
    for _ in range(60):  # into the afternoon
        sent = rng.choice([-1.0, 1.0, 0.3], size=env.action_spaces[agent].shape).astype(np.float32)
        env.step({agent: sent})
        assert simulation.delivered == pytest.approx(simulation.setpoints, abs=1e-6 * 600)
    env.close()


def test_element_bounds_a_device_that_is_written_by_hand(tmp_path: Path) -> None:
    device = {"kind": "inverter", "element": "PVSystem.x", "reactive": "kva"}
    agents = {"A": {"devices": ["x"], "zone": {"buses": ["b"]}, "pcc": "b"}}
    element = "PVSystem kva=500 pmpp=500 %pmpp=60 kvarmax=100 kvarmaxabs=60"
    env = make(tmp_path, element, name="own", devices={"x": device}, agents=agents)
    env.reset(seed=0, options={"day": 171})
    q = next(row for row in env.task.simulation.actions if row.name == "q_kvar")
    assert (q.low, q.high) == (-60.0, 100.0)
    for _ in range(50):
        env.step({"A": np.ones(2, dtype=np.float32)})
    assert env.task.simulation.delivered[0].max() == pytest.approx(300.0, abs=1e-4)
    assert env.neutral_actions()["A"] == pytest.approx([1.0, -0.25])  # 0 kvar of -60 .. 100
    env.close()
