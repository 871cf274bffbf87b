"""The HTTP interface: who is let in, what is answered, errors in one form, and a page that needs no network."""

from __future__ import annotations

import json
import re
import sys
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from powergrid.advice import Advisor, AdvisorOptions
from powergrid.advice.service.app import MOST_BYTES, build_app
from powergrid.advice.service.listening import find_token, is_loopback, open_server
from powergrid.advice.shadow import ShadowLog
from powergrid.errors import PowerGridError
from powergrid.evaluation.baselines import BASELINES
from powergrid.scenario import load_scenario

TOKEN = "a-token-of-the-tests"
READINGS = {
    "readings": {
        "675.v_pu": 0.97, "671.v_pu": 0.98, "battery_1.soc": 0.5, "battery_1.p_kw": 0.0, "capacitor_1.steps_on": 1,
        "capacitor_2.steps_on": 1, "regulator_1.tap": 3, "regulator_2.tap": 0, "regulator_3.tap": 3,
    }
}  # fmt: skip


@pytest.fixture(scope="module")
def advisor() -> Iterator[Advisor]:
    built = Advisor(
        load_scenario("ieee13_voltvar"), BASELINES["rule_based"].make(0), AdvisorOptions(min_coverage=0, follows=False)
    )
    yield built
    built.close()


@pytest.fixture(scope="module")
def client(advisor: Advisor) -> Iterator[TestClient]:
    app = build_app(advisor, TOKEN)
    with TestClient(app, headers={"Authorization": f"Bearer {TOKEN}"}, raise_server_exceptions=False) as open_client:
        yield open_client


def error_of(answer: Any) -> tuple[int, str]:
    assert set(answer.json()) == {"error"}
    assert set(answer.json()["error"]) == {"code", "where", "text", "remedy"}
    return answer.status_code, answer.json()["error"]["code"]


def test_health_answers_anybody(client: TestClient) -> None:
    answer = client.get("/health", headers={"Authorization": ""})
    assert answer.status_code == 200
    assert answer.json()["status"] == "ok"


@pytest.mark.parametrize(("verb", "path"), [("GET", "/spec"), ("POST", "/advise"), ("GET", "/log"), ("GET", "/else")])
def test_nobody_gets_in_without_the_token(client: TestClient, verb: str, path: str) -> None:
    for given in ("", TOKEN, "Bearer", "Bearer a-token-of-the-test", f"Basic {TOKEN}", "Bearer ä"):
        assert error_of(client.request(verb, path, headers={"Authorization": given.encode()})) == (401, "unauthorized")


def test_spec_names_readings_and_setpoints_with_units_and_ranges(client: TestClient) -> None:
    spec = client.get("/spec").json()
    readings = {each["name"]: each for each in spec["readings"]}
    assert readings["675.1.v_pu"]["trained"] == [0.85, 1.15]
    assert readings["battery_1.soc"]["possible"] == [0.0, 1.0]
    setpoints = {(each["device"], each["quantity"]): each for each in spec["setpoints"]}
    assert setpoints["regulator_1", "tap"]["range"] == [-16.0, 16.0]
    assert setpoints["battery_1", "p_kw"]["unit"] == "kW"


def test_advice_has_a_setpoint_for_every_device(client: TestClient) -> None:
    advice = client.post("/advise", json={"time": "2026-07-12T14:00", **READINGS}).json()
    assert advice["problems"] == []
    assert advice["time"] == "2026-07-12T14:00:00"
    given = {each["device"]: each for each in advice["setpoints"]}
    assert set(given) == {"battery_1", "capacitor_1", "capacitor_2", "regulator_1", "regulator_2", "regulator_3"}
    assert all(each["by"] == "policy" for each in given.values())
    assert -16 <= given["regulator_1"]["set"] <= 16
    assert given["regulator_1"]["pu"] == pytest.approx(1 + given["regulator_1"]["set"] * 0.00625)


def test_wrong_readings_are_answered_with_their_problems(client: TestClient) -> None:
    text = '{"time": "2026-07-12T14:00", "readings": {"675.1.v_pu": NaN, "battery_1.soc": 7, "nothing": 1}}'
    answer = client.post("/advise", content=text)
    assert answer.status_code == 200
    codes = [problem["code"] for problem in answer.json()["problems"]]
    assert codes == ["reading-not-finite", "reading-implausible", "reading-unknown"]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", (400, "not-json")),
        (b"{", (400, "not-json")),
        (b"\xff\xfe\x00", (400, "not-json")),
        (b"[" * 30 + b"]" * 30, (400, "too-deep")),
        (b"[" * 100_000, (400, "not-json")),
        (b"0" * (MOST_BYTES + 1), (413, "too-large")),
    ],
    ids=["empty", "cut", "bytes", "deep", "deepest", "large"],
)
def test_what_is_no_json_is_an_error_with_a_code(client: TestClient, content: bytes, expected: tuple[int, str]) -> None:
    assert error_of(client.post("/advise", content=content)) == expected


def test_unknown_paths_verbs_and_parameters_are_errors_in_the_same_form(client: TestClient) -> None:
    assert error_of(client.get("/else")) == (404, "not-found")
    assert error_of(client.get("/advise")) == (405, "method-not-allowed")
    assert error_of(client.get("/log?limit=-1")) == (422, "invalid-parameter")


def test_page_of_the_interface_loads_nothing_from_anywhere(client: TestClient) -> None:
    page = client.get("/docs", headers={"Authorization": ""}).text
    for path in ("/health", "/spec", "/advise", "/log"):
        assert f"<code>{path}</code>" in page
    assert not re.search(r"(src|href)=\"(?!/openapi\.json|data:,)", page)
    assert "script" not in page
    schema = client.get("/openapi.json").json()
    assert {"AdviceData", "ErrorData", "Setpoint", "Problem"} <= set(schema["components"]["schemas"])


def test_log_holds_advice_beside_what_was_done(advisor: Advisor, tmp_path: Path) -> None:
    file = tmp_path / "shadow.csv"
    client = TestClient(
        build_app(advisor, TOKEN, ShadowLog(advisor, file)), headers={"Authorization": f"Bearer {TOKEN}"}
    )
    moved = {"readings": {**READINGS["readings"], "regulator_1.tap": 5}}
    client.post("/advise", json={"time": "2026-08-01T10:00", **READINGS})
    assert client.get("/log").json()["entries"] == []
    assert client.post("/log", json={"battery_1.p_kw": -20.0, "regulator_9.tap": 1}).json()["taken"] == 1
    client.post("/advise", json={"time": "2026-08-01T11:00", **moved})
    found = client.get("/log").json()
    entries = {(each["device"], each["quantity"]): each for each in found["entries"]}
    assert entries["regulator_1", "tap"]["done"] == 5.0
    assert entries["regulator_1", "tap"]["before"] == 3.0
    assert entries["battery_1", "p_kw"]["done"] == -20.0
    assert entries["network", "v_min_pu"]["done"] > 0.8
    sums = {(each["device"], each["quantity"]): each for each in found["summary"]}
    assert sums["regulator_1", "tap"]["moves_done"] == 2.0
    assert client.get("/log?limit=1").json()["entries"] == [found["entries"][-1]]
    assert len(file.read_text().splitlines()) == 1 + len(found["entries"])


def test_token_is_of_file_environment_or_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("POWERGRID_TOKEN", raising=False)
    (first, new), (second, _) = find_token(), find_token()
    assert new
    assert first != second
    assert len(first) >= 32
    monkeypatch.setenv("POWERGRID_TOKEN", f" {TOKEN}\n")
    assert find_token() == (TOKEN, False)
    (tmp_path / "token").write_text("of-the-file-and-long\n")
    assert find_token(tmp_path / "token") == ("of-the-file-and-long", False)
    for wrong in ("short", "ä" * 20, "with blanks in it, long"):
        monkeypatch.setenv("POWERGRID_TOKEN", wrong)
        with pytest.raises(PowerGridError, match="at least 16"):
            find_token()


def test_without_fastapi_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fastapi", None)
    monkeypatch.delitem(sys.modules, "powergrid.advice.service.app")
    with pytest.raises(PowerGridError, match=r"powergrid-dss\[serve\]"):
        import powergrid.advice.service.app  # noqa: F401


def test_server_answers_where_it_says_that_it_listens(advisor: Advisor) -> None:
    server, listener, address = open_server(build_app(advisor, TOKEN), "127.0.0.1", 0)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        body = json.dumps({"time": "2026-09-12T14:00", **READINGS}).encode()
        request = urllib.request.Request(f"{address}/advise", body, {"Authorization": f"Bearer {TOKEN}"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            assert len(json.load(answer)["setpoints"]) == 6
        with pytest.raises(PowerGridError, match="cannot listen"):
            open_server(None, "127.0.0.1", int(address.rpartition(":")[2]))
    finally:
        server.should_exit = True
        thread.join(30)
        listener.close()
    assert is_loopback("127.0.0.1")
    assert is_loopback("::1")
    assert not is_loopback("0.0.0.0")
