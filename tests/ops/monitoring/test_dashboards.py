"""The dashboards: as the generator makes them, and every query about something we have."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ops.console.columns import COLUMNS
from ops.dashboards.files import files
from ops.dashboards.panels import COLUMNS as WIDTH
from tests.ops.console.rig import Console, Shared, console
from tests.ops.monitoring.promql import ROOT, faults, filled, row_labels, templated

FOLDER = ROOT / "ops/data/dashboards"
NAMES = sorted(path.name for path in FOLDER.glob("*.json"))
UNITS = {"none", "s", "bps", "pps", "cps", "reqps", "percentunit", "bytes"}


def load(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FOLDER / name).read_text())
    return found


def panels(name: str) -> list[dict[str, Any]]:
    return [panel for panel in load(name)["panels"] if panel["type"] != "row"]


def queries(name: str) -> Iterator[tuple[str, str, str]]:
    """(panel, PromQL, legend)"""
    for panel in panels(name):
        for target in panel["targets"]:
            if "expr" in target:
                yield panel["title"], target["expr"], target["legendFormat"]


def test_files_are_what_the_generator_makes() -> None:
    made = files()
    assert sorted(made) == NAMES
    for name, text in made.items():
        assert (FOLDER / name).read_text() == text, "run: python -m ops.dashboards"


@pytest.mark.parametrize("name", NAMES)
def test_every_query_names_what_there_is(name: str) -> None:
    for title, expr, legend in queries(name):
        assert not faults(filled(expr)), (title, expr, faults(filled(expr)))
        if legend != "__auto":
            assert templated(legend) <= row_labels(filled(expr)), (title, expr, legend)
        # Counters need a range that fits the scrape interval whatever the zoom.
        for window in re.findall(r"rate\(.*?\[(.*?)\]", expr):
            assert window == "$__rate_interval", (title, expr)


def test_the_check_sees_what_is_wrong() -> None:
    assert faults("pptp_slots_uesd") == ["no metric pptp_slots_uesd"]
    assert faults('pptp_slots_used{wroker="1"}') == ["pptp_slots_used has no label wroker"]
    assert faults("sum by (pool) (pptp_slots_used)")
    assert faults("sum by (worker) (pptp_slots_capacity)")
    assert not faults("sum by (worker) (rate(pptp_traffic_bytes_total[5m])) / 2 > bool 1")
    with pytest.raises(ValueError, match="parenthesis"):
        faults("sum by (worker (pptp_slots_used)")


@pytest.mark.parametrize("name", NAMES)
def test_panels(name: str) -> None:
    board = load(name)
    ids = [panel["id"] for panel in board["panels"]]
    assert len(ids) == len(set(ids)) and min(ids) > 0
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        at = panel["gridPos"]
        assert at["x"] >= 0 and at["x"] + at["w"] <= WIDTH and at["w"] > 0 and at["h"] > 0
        own = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not own & taken, panel["title"]
        taken |= own
    for panel in panels(name):
        assert panel["title"] and panel["description"]
        assert panel["fieldConfig"]["defaults"]["unit"] in UNITS
        variables = {v["name"] for v in board["templating"]["list"]}
        for used in [panel["datasource"], *(t["datasource"] for t in panel["targets"])]:
            assert used["uid"] in ("${datasource}", "${api}")
            assert used["uid"][2:-1] in variables
        refs = [target["refId"] for target in panel["targets"]]
        assert refs and len(refs) == len(set(refs))


def test_of_all_together() -> None:
    boards = [load(name) for name in NAMES]
    assert len({b["uid"] for b in boards}) == len({b["title"] for b in boards}) == len(NAMES) == 4
    for board in boards:
        by_name = {v["name"]: v for v in board["templating"]["list"]}
        assert by_name["datasource"]["type"] == "datasource"
        assert by_name["datasource"]["query"] == "prometheus"
        # label_values(METRIC, LABEL)
        metric = by_name["instance"]["query"]["query"].partition("(")[2].partition(",")[0]
        assert not faults(metric)
        text = json.dumps(board)
        for used in set(re.findall(r"\$\{?([a-z]+)\}?", text.replace("$__rate_interval", ""))):
            assert used in by_name


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Console]:
    shared = Shared()
    shared.up(0, "alice", "10.99.1.5")
    shared.call(1, worker=1)
    with console(shared, tmp_path_factory.mktemp("run")) as found:
        yield found


def test_the_list_of_sessions(two: Console, tmp_path: Path) -> None:
    """The API's answer, through jq as the Infinity datasource has it."""
    (target,) = [t for p in panels("subscribers.json") for t in p["targets"] if "url" in t]
    path = target["url"].replace("${search}", "")
    columns = path.partition("columns=")[2].partition("&")[0].split(",")
    assert set(columns) <= set(COLUMNS)
    _, _, body = two.request(path)
    if shutil.which("jq") is None:
        pytest.fail("jq is missing: apt-get install jq")
    done = subprocess.run(
        ["jq", "-c", target["root_selector"]], input=body, capture_output=True, check=True
    )
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["username"] for row in rows] == ["alice", None]
    assert [row["state"] for row in rows] == ["active", "starting"]
    assert all(list(row) == columns for row in rows)
    (panel,) = [p for p in panels("subscribers.json") if p["type"] == "table"]
    (organize,) = [t for t in panel["transformations"] if t["id"] == "organize"]
    assert list(organize["options"]["indexByName"]) == columns
