"""Pictures of a feeder: what is in them is the feeder's data, and names can be read."""

from __future__ import annotations

import dataclasses
import itertools
import subprocess
import sys
from pathlib import Path

import networkx as nx
import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread
from matplotlib.transforms import Bbox

from powergrid import list_scenarios, load_scenario
from powergrid.errors import ScenarioError
from powergrid.evaluation.drawing import (
    GridState,
    draw_network,
    draw_voltage_profile,
    look_at_feeder,
    look_at_scenario,
    save,
    trace_voltages,
)
from powergrid.evaluation.drawing.diagram import worst_voltages
from powergrid.evaluation.drawing.layout import Room, fill_places, lay_out, place_as_tree
from powergrid.grid.feeder.feeder import list_feeders
from tests.envs.worlds import PLACES, every_kind


def artist(figure: Figure, name: str):
    found = [a for axes in figure.axes for a in axes.get_children() if a.get_gid() == name]
    assert len(found) <= 1
    return found[0] if found else None


def count_segments(figure: Figure, name: str) -> int:
    lines = artist(figure, name)
    return 0 if lines is None else len(lines.get_segments())


def names_in(figure: Figure, what: str) -> set[str]:
    texts = [t for axes in figure.axes for t in axes.texts if str(t.get_gid()).startswith(f"{what}-")]
    return {name for text in texts for name in text.get_text().split(", ")}


def small_feeder(folder: Path, *lines: str, after: str = "") -> GridState:
    master = folder / "small.dss"
    master.write_text(
        "\n".join(
            ["New Circuit.x basekv=12.47 bus1=a", *lines, "Set VoltageBases=[12.47, 0.208]", "CalcVoltageBases", after]
        )
    )
    return look_at_feeder(str(master))


@pytest.fixture(scope="module")
def ieee13() -> GridState:
    return look_at_feeder("ieee13")


# -- the diagram


@pytest.mark.parametrize("scenario", list_scenarios())
def test_diagram_of_a_scenario_draws_every_line_bus_device_and_agent(scenario: str, tmp_path: Path) -> None:
    state = look_at_scenario({"env_name": scenario}, step=1)
    figure = draw_network(state)
    b = state.network.branches
    joins = [
        (name.startswith("line."), bool(closed))
        for name, closed, buses in zip(b.names, state.closed, b.buses, strict=True)
        for _ in buses[1:]
    ]
    for group, is_line, is_closed in (
        ("lines", True, True),
        ("open-lines", True, False),
        ("others", False, True),
        ("open-others", False, False),
    ):
        assert count_segments(figure, group) == joins.count((is_line, is_closed)), group
    drawn = [artist(figure, name) for name in ("buses", "buses-outside", "buses-dead")]
    assert sum(len(dots.get_offsets()) for dots in drawn if dots is not None) == len(state.network.buses)
    assert names_in(figure, "zone") == set(state.zones)
    assert names_in(figure, "device") == set(state.devices)
    for agent, buses in state.zones.items():
        assert len(artist(figure, f"halo-{agent}").get_offsets()) == len(buses)
    svg = save(figure, tmp_path / "picture.svg").read_text(encoding="utf-8")
    for name in (*state.zones, *state.devices):
        assert f">{name}</text>" in svg or f"{name}, " in svg or f", {name}" in svg, name


@pytest.mark.parametrize("feeder", list_feeders())
def test_pictures_of_a_shipped_feeder_show_something(feeder: str, tmp_path: Path) -> None:
    state = look_at_feeder(feeder)
    for name, make in (("network", draw_network), ("profile", draw_voltage_profile)):
        pixels = imread(save(make(state), tmp_path / f"{name}.png", dpi=60))
        assert pixels.std() > 0.02
        assert (pixels[..., :3] == 1.0).mean() > 0.3  # a drawing on white


def test_names_in_a_diagram_do_not_cover_each_other() -> None:
    figure = draw_network(look_at_scenario({"env_name": "ieee123_mg"}, day=150, step=52))
    figure.draw_without_rendering()
    texts = [t for t in figure.axes[0].texts if t.get_gid()]
    boxes = [t.get_window_extent() for t in texts]
    assert len(boxes) > 100
    for (one, a), (other, b) in itertools.combinations(zip(texts, boxes, strict=True), 2):
        shared = Bbox.intersection(a, b)
        assert shared is None or shared.width * shared.height < 0.2 * min(a.width * a.height, b.width * b.height), (
            one.get_text(),
            other.get_text(),
        )
    frame = figure.axes[0].get_window_extent()
    assert all(frame.x0 <= box.x0 and box.x1 <= frame.x1 for box in boxes)


@pytest.mark.parametrize("scenario", ["ieee13_mg", "ieee34_mg"])
def test_buses_of_a_small_feeder_have_their_names(scenario: str) -> None:
    state = look_at_scenario({"env_name": scenario}, step=0)
    missing = set(state.network.buses) - names_in(draw_network(state), "bus")
    assert len(missing) <= 1, missing  # beside a bus with many devices there may be no room


def test_bus_has_the_colour_of_its_worst_phase_and_a_ring_outside_the_band(ieee13: GridState) -> None:
    v_pu = np.ones(len(ieee13.network.nodes))
    v_pu[ieee13.network.nodes.index("675.2")] = 1.08
    v_pu[ieee13.network.nodes.index("675.3")] = 0.97
    v_pu[ieee13.network.nodes.index("671.1")] = 0.96
    state = dataclasses.replace(ieee13, v_pu=v_pu)
    worst = dict(zip(state.network.buses, worst_voltages(state).tolist(), strict=True))
    assert (worst["675"], worst["671"], worst["680"]) == (1.08, 0.96, 1.0)
    figure = draw_network(state)
    ring = artist(figure, "buses-outside")
    assert len(ring.get_offsets()) == 1
    red, green, blue, _ = ring.get_facecolors()[0]
    assert red > 2.0 * max(green, blue)


def test_open_line_is_drawn_open_and_what_lies_behind_it_dead(tmp_path: Path) -> None:
    lines = ("New Line.ab bus1=a bus2=b switch=y", "New Line.bc bus1=b bus2=c switch=y", "New Line.cd bus1=c bus2=d")
    closed = draw_network(small_feeder(tmp_path, *lines))
    assert (count_segments(closed, "lines"), count_segments(closed, "open-lines")) == (3, 0)
    assert artist(closed, "symbols-switch_open") is None
    state = small_feeder(tmp_path, *lines, after="Open Line.bc term=1")
    figure = draw_network(state)
    assert (count_segments(figure, "lines"), count_segments(figure, "open-lines")) == (2, 1)
    assert count_segments(figure, "symbols-switch_open") == count_segments(figure, "symbols-switch_closed") == 1
    dead = artist(figure, "buses-dead")
    assert len(dead.get_offsets()) == 2
    assert np.isinf(trace_voltages(state).distance_km[[state.network.nodes.index(n) for n in ("c.1", "d.1")]]).all()


@pytest.mark.parametrize("feeder", ["ieee13", "ieee123"])
def test_devices_of_every_kind_are_drawn_where_they_are(feeder: str, tmp_path: Path) -> None:
    state = look_at_scenario(load_scenario(every_kind(feeder, tmp_path)), step=1)
    network, figure = state.network, draw_network(state)
    assert names_in(figure, "device") == set(state.devices)
    kinds = {device.kind for device in state.devices.values()}
    assert len(kinds) == 8
    for kind in ("storage", "inverter", "generator", "flexible_load", "ev_charger"):
        assert count_segments(figure, f"symbols-{kind}") > 0, kind
    for device in state.devices.values():
        if device.kind in ("capacitor", "regulator", "switch"):
            kind, _, name = network.branches.names[device.branch].partition(".")
            names = {"capacitor": network.capacitors, "transformer": network.regulators, "line": network.switches}
            assert name in names[kind]
        elif device.kind in ("generator", "storage"):
            assert network.buses[device.bus] == PLACES[feeder][device.kind]


def test_switch_that_an_agent_opened_is_drawn_open() -> None:
    state = look_at_scenario({"env_name": "ieee13_mg"}, step=0)
    branch = state.network.branches.names.index("line.671692")
    assert state.closed[branch]
    figure = draw_network(dataclasses.replace(state, closed=state.closed & (np.arange(len(state.closed)) != branch)))
    assert count_segments(figure, "open-lines") == 1


# -- where buses go


def test_feeder_without_coordinates_becomes_a_tree_from_left_to_right(tmp_path: Path) -> None:
    lines = [f"New Line.{x}{y} bus1={x} bus2={y}" for x, y in ("ab", "bc", "bd", "de", "df")]
    state = small_feeder(tmp_path, *lines)
    xy, is_map = lay_out(state.network)
    assert not is_map
    at = {bus: xy[i] for i, bus in enumerate(state.network.buses)}
    assert [at[bus][0] for bus in "abcdef"] == [0, 1, 2, 2, 3, 3]
    assert len(np.unique(xy, axis=0)) == 6
    assert at["d"][1] == pytest.approx((at["e"][1] + at["f"][1]) / 2)
    figure = draw_network(state)
    assert count_segments(figure, "lines") == 5
    assert names_in(figure, "bus") == set("abcdef")


def test_buses_without_coordinates_go_between_their_neighbours_or_beside_the_last() -> None:
    graph = nx.path_graph(6)  # 0 - 1 - 2 - 3 - 4 - 5, 0 and 3 known, 4 and 5 hang on
    bus_xy = np.full((6, 2), np.nan)
    bus_xy[0], bus_xy[3] = (0.0, 0.0), (3.0, 6.0)
    xy = fill_places(graph, bus_xy, np.isfinite(bus_xy).all(axis=1))
    np.testing.assert_allclose(xy[1:3], [[1.0, 2.0], [2.0, 4.0]], atol=1e-12)
    assert np.isfinite(xy).all()
    assert xy[4, 0] > 3.0
    assert xy[5, 0] > xy[4, 0]


def test_tree_of_several_islands_gives_every_bus_its_own_place() -> None:
    graph = nx.disjoint_union_all([nx.balanced_tree(3, 3), nx.path_graph(4), nx.cycle_graph(5)])
    xy = place_as_tree(graph, 0)
    assert len(np.unique(xy, axis=0)) == graph.number_of_nodes()


def test_room_places_names_apart_while_there_is_room_and_gives_up_after() -> None:
    room = Room(200.0, 200.0)
    anchor = np.array([100.0, 100.0])
    centres = [room.find(anchor, 20.0, 8.0, (4.0, 16.0), 0.0) for _ in range(40)]
    found = [centre for centre in centres if centre is not None]
    assert 4 < len(found) < 40
    for one, other in itertools.combinations(found, 2):
        assert abs(one[0] - other[0]) >= 20.0 - 1e-9 or abs(one[1] - other[1]) >= 8.0 - 1e-9


# -- the profile

# Lengths of the published IEEE 13-node feeder from 650 [ft]; the switch 671-692 has no unit: 0.001 as it is.
FEET = {"650": 0, "632": 2000, "670": 2667, "671": 4000, "680": 5000, "684": 4300, "611": 4600, "652": 5100,
        "645": 2500, "646": 2800, "633": 2500, "634": 2500}  # fmt: skip


def test_distances_on_ieee13_are_the_published_lengths_added_up(ieee13: GridState) -> None:
    distances = dict(zip(ieee13.network.buses, ieee13.network.distances_km().tolist(), strict=True))
    for bus, feet in FEET.items():
        assert distances[bus] == pytest.approx(feet * 0.3048e-3, abs=1e-9), bus
    assert distances["675"] == pytest.approx((4000 + 500) * 0.3048e-3 + 0.001, abs=1e-9)


def test_distances_grow_along_every_branch_of_a_radial_feeder() -> None:
    network = look_at_feeder("ieee123").network
    distances = network.distances_km()
    for path in nx.single_source_shortest_path(network.graph, network.source_bus).values():
        along = distances[path]
        assert (np.diff(along) >= 0.0).all()
    b = network.branches
    for branch, buses in enumerate(b.buses):
        if b.names[branch].startswith("line."):
            assert abs(distances[buses[0]] - distances[buses[1]]) == pytest.approx(b.length_km[branch], abs=1e-12)


@pytest.mark.parametrize(
    ("unit", "km"),
    [("mi", 1.609344), ("kft", 0.3048), ("km", 1), ("m", 1e-3), ("ft", 3.048e-4), ("in", 2.54e-5), ("cm", 1e-5),
     ("mm", 1e-6)],
)  # fmt: skip
def test_length_of_a_line_is_read_in_every_unit_of_the_engine(unit: str, km: float, tmp_path: Path) -> None:
    of_line = small_feeder(tmp_path, f"New Line.ab bus1=a bus2=b length=0.5 units={unit}").network
    assert of_line.distances_km()[of_line.bus_index["b"]] == pytest.approx(0.5 * km, rel=1e-12)
    code = f"New LineCode.c nphases=3 r1=0.1 x1=0.1 units={unit}"
    of_code = small_feeder(tmp_path, code, "New Line.ab bus1=a bus2=b linecode=c length=0.5").network
    assert of_code.distances_km()[of_code.bus_index["b"]] == pytest.approx(0.5 * km, rel=1e-12)
    assert of_code.branches.has_length_unit.all()


def test_axis_says_when_lengths_have_no_unit(tmp_path: Path) -> None:
    bare = small_feeder(tmp_path, "New Line.ab bus1=a bus2=b length=3")
    assert bare.network.distances_km()[bare.network.bus_index["b"]] == 3.0
    assert "length unit, which it does not give" in draw_voltage_profile(bare).axes[0].get_xlabel()
    mixed = small_feeder(tmp_path, "New Line.ab bus1=a bus2=b length=3 units=km", "New Line.bc bus1=b bus2=c length=1")
    assert "1 line without a unit" in draw_voltage_profile(mixed).axes[0].get_xlabel()
    whole = small_feeder(tmp_path, "New Line.ab bus1=a bus2=b length=3 units=km")
    assert draw_voltage_profile(whole).axes[0].get_xlabel() == "distance from the source [km]"


@pytest.mark.parametrize("feeder", ["ieee13", "ieee34", "ieee37", "ieee123"])
def test_profile_holds_every_node_at_its_distance_and_voltage(feeder: str) -> None:
    state = look_at_feeder(feeder)
    network = state.network
    figure = draw_voltage_profile(state)
    drawn: list[np.ndarray] = []
    for phase, name in enumerate("ABC"):
        own = [artist(figure, f"nodes-{name}-{level}").get_offsets() for level in ("primary", "secondary")]
        of_phase = np.concatenate(own)
        nodes = np.flatnonzero(network.node_phase == phase + 1)
        expected = np.column_stack([network.distances_km()[network.node_bus[nodes]], state.v_pu[nodes]])
        np.testing.assert_array_equal(np.sort(of_phase, axis=0), np.sort(expected, axis=0))
        drawn.append(of_phase)
    assert sum(map(len, drawn)) == len(network.nodes)
    joined = sum(
        count_segments(figure, f"lines-{name}-{level}") for name in "ABC" for level in ("primary", "secondary")
    )
    # every node but those of the source hangs on another one
    assert joined >= len(network.nodes) - int((network.node_bus == network.source_bus).sum())


def test_legs_of_a_secondary_have_the_phase_of_their_transformer(tmp_path: Path) -> None:
    state = small_feeder(
        tmp_path,
        "New Line.ab bus1=a bus2=b length=1 units=km",
        "New Transformer.t phases=1 windings=3 buses=(b.3, s.1.0, s.0.2) kVs=(7.2, 0.12, 0.12) kVAs=(25, 25, 25)",
        "New Line.st bus1=s.1.2 bus2=t.1.2 phases=2 length=20 units=m",
        "New Load.l bus1=t.1.2 phases=1 kv=0.208 kw=5",
    )
    traces = trace_voltages(state)
    phase = dict(zip(state.network.nodes, traces.phase.tolist(), strict=True))
    assert {phase[node] for node in ("s.1", "s.2", "t.1", "t.2")} == {2}
    assert [phase[f"b.{k}"] for k in (1, 2, 3)] == [0, 1, 2]
    below = dict(zip(state.network.nodes, traces.secondary.tolist(), strict=True))
    assert below["t.1"]
    assert not below["b.3"]
    assert len(artist(draw_voltage_profile(state), "nodes-C-secondary").get_offsets()) == 4


# -- states and files


def test_state_of_a_scenario_is_what_no_control_leads_to() -> None:
    morning, again = (look_at_scenario({"env_name": "ieee13_mg"}, day=3, step=33) for _ in range(2))
    np.testing.assert_array_equal(morning.v_pu, again.v_pu)
    assert morning.title == "ieee13_mg, 2018-01-04 08:00 (day 3, step 33 without control)"
    noon = look_at_scenario({"env_name": "ieee13_mg"}, day=3)
    assert "step 48" in noon.title
    assert np.abs(noon.v_pu - morning.v_pu).max() > 1e-4
    with pytest.raises(ScenarioError, match=r"step 97 is outside the episode; allowed: 0\.\.96"):
        look_at_scenario({"env_name": "ieee13_mg"}, step=97)
    with pytest.raises(ScenarioError, match="day 400 is outside the profiles"):
        look_at_scenario({"env_name": "ieee13_mg"}, day=400)


def test_equal_pictures_are_equal_files(ieee13: GridState, tmp_path: Path) -> None:
    for suffix in (".svg", ".png"):
        one, other = (save(draw_network(ieee13), tmp_path / f"{i}{suffix}").read_bytes() for i in range(2))
        assert one == other
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.png", "0.svg", "1.png", "1.svg"]


@pytest.mark.parametrize(
    ("name", "said"), [("a.pdf", "ends in .png or .svg, not in '.pdf'"), ("no/such/a.png", "there is no folder")]
)
def test_picture_that_cannot_be_is_refused(name: str, said: str, ieee13: GridState, tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match=said):
        save(draw_voltage_profile(ieee13), tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_drawing_needs_no_pyplot_and_importing_it_no_matplotlib() -> None:
    code = (
        "import sys\n"
        "import powergrid.cli\n"
        "from powergrid.evaluation.drawing import draw_network, look_at_feeder\n"
        "assert 'matplotlib' not in sys.modules\n"
        "draw_network(look_at_feeder('ieee13'))\n"
        "assert 'matplotlib.figure' in sys.modules and 'matplotlib.pyplot' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
