"""Scenarios that the tests of evaluation share."""

from __future__ import annotations

from typing import Any

#: All eight kinds on 13 nodes, some bound to the feeder's own elements, one device of nobody's.
ALL_KINDS: dict[str, Any] = {
    "name": "all_kinds",
    "feeder": "ieee13",
    "split": "test",
    "devices": {
        "ess": {"kind": "storage", "bus": "675", "e_max_kwh": 800, "p_max_kw": 200, "p_charge_max_kw": 150,
                "s_max_kva": 220, "reactive": True},
        "pv": {"kind": "inverter", "bus": "675", "p_max_kw": 900, "reactive": "kva", "power_factor_min": 0.9},
        "pv_fixed": {"kind": "inverter", "bus": "633", "p_max_kw": 200, "curtailable": False},
        "gen": {"kind": "generator", "bus": "680", "p_max_kw": 300, "p_min_kw": 60, "ramp_kw_per_min": 5,
                "cost_b_usd_per_kwh": 0.14, "reactive": True},
        "flex": {"kind": "flexible_load", "element": "Load.671", "owed_max_kwh": 500},
        "ev": {"kind": "ev_charger", "bus": "634", "ports": 6, "p_max_kw": 7.4, "v2g": True},
        "cap": {"kind": "capacitor", "element": "Capacitor.cap1", "dwell_steps": 4},
        "reg": {"kind": "regulator", "element": "RegControl.reg1", "tap_min": -8, "tap_max": 12, "moves_per_step": 1},
        "tie": {"kind": "switch", "element": "Line.671692"},
        "spare": {"kind": "storage", "bus": "671", "e_max_kwh": 100, "p_max_kw": 50},
    },
    "agents": {
        "A": {"devices": ["ess", "pv", "gen", "flex", "cap", "reg", "tie"], "zone": {"downstream_of": "671"},
              "pcc": "671"},
        "B": {"devices": ["pv_fixed", "ev"], "zone": {"buses": ["633", "634"]}, "pcc": "633"},
    },
}  # fmt: skip
