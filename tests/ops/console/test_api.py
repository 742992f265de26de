"""The API as its document says it, for who has a token and who has none."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from ops import metrics
from ops.console import causes, openapi
from ops.console.columns import COLUMNS
from ops.console.failures import KINDS, by_cause, newest
from ops.console.guard import Guard, Rates
from ops.console.history import EVERY_S, KEPT, History, Line, Sample
from ops.settings import Console as ConsoleSettings
from tests.ops.console.rig import ROOT, Console, Shared, console, free_port, settings
from tests.ops.console.test_show import dispatcher, open_dir, past

__all__ = ["open_dir"]

TOKEN = "d2a1f0e0c3b4a596877869504132abcd"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
FILE = ROOT / "ops/data/openapi.json"
NAMES = (b"alice", b"bob", b"10.99.1.5", b"192.0.2.")


def with_token() -> Any:
    digest = hashlib.sha256(TOKEN.encode()).hexdigest()
    return replace(
        settings(free_port()),
        console=ConsoleSettings(hosts=("lac1.example.net",), token_digests=(digest,)),
    )


def serving(folder: Path) -> AbstractContextManager[Console]:
    shared = Shared()
    shared.up(0, "alice", "10.99.1.5")
    shared.up(1, "bob", "10.99.1.6", worker=1, peer="192.0.2.9")
    shared.call(2)
    shared.count("ended_no_gre", 3)
    shared.count("refused_no_slot", 2)
    shared.count("connections_timeout", 2)
    shared.count("ended_user_request", 9)
    return console(shared, folder, with_token())


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Console]:
    with serving(tmp_path_factory.mktemp("run")) as found:
        yield found


@pytest.fixture(scope="module")
def besieged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Console]:
    """For wrong tokens: they slow down the right ones of the same source, too."""
    with serving(tmp_path_factory.mktemp("run")) as found:
        yield found


# The document


def test_the_document_is_the_codes() -> None:
    assert FILE.read_text() == openapi.text(), (
        "python -m ops.console.openapi > ops/data/openapi.json"
    )
    OpenAPIV31SpecValidator(json.loads(FILE.read_text())).validate()


def validate(path: str, answer: Any) -> None:
    document = json.loads(FILE.read_text())
    content = document["paths"][path]["get"]["responses"]["200"]["content"]
    schema = {**content["application/json"]["schema"], "components": document["components"]}
    Draft202012Validator(schema).validate(answer)


@pytest.mark.parametrize("path", sorted(set(openapi.PATHS) - {"/api/ends", "/api/bans"}))
@pytest.mark.parametrize("tcp", [False, True], ids=["unix", "tcp"])
def test_answers_are_as_documented(guarded: Console, path: str, tcp: bool) -> None:
    asked = path.replace("{name}", "alice")
    validate(path, guarded.json(asked, tcp=tcp, headers=BEARER if tcp else {}))


def test_rows_of_the_dispatcher_are_as_documented(open_dir: Path) -> None:
    calls = [past(1, "alice", "user_request", up=True), past(2, "bob", "no_gre")]
    with console(Shared(), open_dir, with_token()) as rig, dispatcher(open_dir, 0, *calls):
        ends = rig.json("/api/ends", tcp=True, headers=BEARER)
        validate("/api/ends", ends)
        assert [end["username"] for end in ends] == ["bob", "alice"]
        found = rig.json("/api/failures", tcp=True)
        validate("/api/failures", found)
        assert [row["cause"] for row in found["newest"]] == ["no_gre"]
        assert b"bob" not in rig.request("/api/failures", tcp=True)[2]


def test_every_path_is_documented(guarded: Console) -> None:
    from ops.console.api import Api  # noqa: PLC0415 - for its routes only

    api = Api.__new__(Api)
    api.__dict__.update(_guard=None)
    paths = {
        route.resource.canonical
        for route in api.public().router.routes()
        if route.resource is not None
    }
    told = {"/", "/metrics", "/healthz", "/readyz", "/api/{rest}"}
    assert {path.replace(":.+", "") for path in paths} - told == set(openapi.PATHS)


# Tokens, names, rates


@pytest.mark.parametrize("path", ["/api/sessions", "/api/session/alice", "/api/ends", "/api/bans"])
@pytest.mark.parametrize("said", ["", "Bearer", "Bearer x", f"Basic {TOKEN}", f"Bearer {TOKEN}0"])
def test_names_only_with_a_token(besieged: Console, path: str, said: str) -> None:
    headers = {"Authorization": said} if said else {}
    status, answered, body = besieged.request(path, tcp=True, headers=headers)
    assert status in (401, 429)  # all these tests are one source
    if status == 401:
        assert answered["www-authenticate"].startswith("Bearer")
    assert not any(name in body for name in NAMES)


def test_the_token_is_told_nowhere(guarded: Console) -> None:
    pid = guarded.process.pid
    assert TOKEN not in Path(f"/proc/{pid}/cmdline").read_text()
    assert TOKEN not in Path(f"/proc/{pid}/environ").read_text()
    assert TOKEN not in guarded.log()
    assert TOKEN not in guarded.metrics(tcp=True)


def test_wrong_tokens_are_slowed_and_logged(tmp_path: Path) -> None:
    with console(Shared(), tmp_path, with_token()) as rig:
        wrong = {"Authorization": "Bearer wrong-wrong-wrong-wrong"}
        got = [rig.request("/api/sessions", tcp=True, headers=wrong)[0] for _ in range(14)]
        assert got[:10] == [401] * 10 and set(got[10:]) == {429}
        # Not even the right one, for a while: a guesser learns nothing.
        status, headers, _ = rig.request("/api/sessions", tcp=True, headers=BEARER)
        assert status == 429 and int(headers["retry-after"]) > 0
        assert rig.request("/api/status", tcp=True)[0] == 200
        assert rig.log().count("wrong token") == 10
        assert "wrong-wrong" not in rig.log()


def test_a_reload_changes_the_tokens(tmp_path: Path) -> None:
    chosen = with_token()
    with console(Shared(), tmp_path, chosen) as rig:
        assert rig.request("/api/sessions", tcp=True, headers=BEARER)[0] == 200
        rig.reload(replace(chosen, console=ConsoleSettings()))
        for _ in range(100):
            if (status := rig.request("/api/sessions", tcp=True, headers=BEARER)[0]) == 403:
                break
        assert status == 403


@pytest.mark.parametrize(
    ("host", "good"),
    [
        ("127.0.0.1:9723", True),
        ("[::1]:9723", True),
        ("192.0.2.1", True),
        ("localhost:1", True),
        ("LAC1.example.net.:9723", True),
        ("evil.example", False),
        ("127.0.0.1.evil.example:9723", False),
        ("", False),
        ("[::1", False),
        ("lac1.example.net@evil", False),
    ],
)
def test_hosts(guarded: Console, host: str, good: bool) -> None:
    assert Guard(ConsoleSettings(hosts=("lac1.example.net",))).knows_host(host) is good
    if host:
        status = guarded.request("/api/status", tcp=True, headers={"Host": host})[0]
        assert status == (200 if good else 421)
        assert guarded.request("/metrics", tcp=True, headers={"Host": host})[0] == 200


def test_rates_of_a_source() -> None:
    rates = Rates(2.0, 3.0, most=2)
    for _ in range(3):
        assert rates.wait_s("a", 10.0) == 0
        rates.take("a", 10.0)
    assert rates.wait_s("a", 10.0) == 0.5
    assert rates.wait_s("b", 10.0) == 0
    assert rates.wait_s("a", 10.5) == 0
    rates.take("b", 10.5)
    rates.take("c", 10.5)
    assert rates.wait_s("a", 10.0) == 0  # forgotten: two others came


def test_a_flood_is_turned_away(tmp_path: Path) -> None:
    with console(Shared(), tmp_path) as rig:
        got = [rig.request("/readyz", tcp=True)[0] for _ in range(600)]
        # Over 200 at once and 50 a second; how many depends on how fast this machine asks.
        assert set(got) <= {503, 429}
        assert rig.request("/readyz")[0] == 503  # the control socket has no such bound


# Listing


def test_pages_of_a_list(guarded: Console) -> None:
    def rows(query: str) -> Any:
        found = guarded.json(f"/api/sessions?columns=username&{query}", tcp=True, headers=BEARER)
        return [row[0] for row in found["rows"]], found["total"]

    assert rows("order=username") == (["alice", "bob", None], 3)
    assert rows("order=-username") == (["bob", "alice", None], 3)
    assert rows("order=-ip&limit=1") == (["bob"], 3)
    assert rows("order=ip&limit=1&offset=1") == (["bob"], 3)
    assert rows("search=ALI") == (["alice"], 1)
    assert rows("search=192.0.2.9") == (["bob"], 1)
    assert rows("search=nobody") == ([], 0)
    assert rows("match=state:starting") == ([None], 1)
    assert rows("limit=0") == ([], 3)


PIECES = st.one_of(
    st.sampled_from([*COLUMNS, "-ip", "username:", "nope", "-", ":", "1", "999999", "1000000"]),
    st.text(max_size=20),
)


@given(
    st.sampled_from([*openapi.PATHS, "/api/nope", "/api//x"]),
    st.text(min_size=1, max_size=20),
    st.dictionaries(
        st.sampled_from(["columns", "match", "search", "order", "limit", "offset", "name", "x"]),
        PIECES,
        max_size=3,
    ),
)
@hypothesis_settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_question_is_answered_as_documented(
    guarded: Console, path: str, name: str, query: dict[str, str]
) -> None:
    if path in ("/api/ends", "/api/bans", "/api/failures"):
        return  # they wait for a dispatcher, which is not there
    asked = path.replace("{name}", quote(name, safe=""))
    words = "&".join(f"{k}={quote(v, safe='')}" for k, v in query.items())
    status, headers, body = guarded.request(f"{asked}?{words}" if words else asked)
    if status == 200:
        validate(path, json.loads(body))
    else:
        assert status in (400, 404)
        assert body.count(b"\n") == 1 and headers["content-type"].startswith("text/plain")
    assert "request failed" not in guarded.log()


# Causes and history


def test_every_cause_is_in_words() -> None:
    assert set(causes.ENDED) == set(metrics.END_CAUSES)
    assert set(causes.REFUSED) == set(metrics.REFUSALS)
    assert set(causes.CONNECTIONS) == set(metrics.CONNECTION_RESULTS) - {"accepted", "closed"}
    assert set(metrics.END_CAUSES) > causes.WANTED
    for kind, known in KINDS.items():
        for name, cause in known.items():
            assert cause.words and cause.words.isprintable(), (kind, name)
            assert cause.advice or name in ("shutting_down",), (kind, name)


def test_failures_by_cause(guarded: Console) -> None:
    rows = guarded.json("/api/failures", tcp=True)["causes"]
    assert [(r["kind"], r["cause"], r["total"]) for r in rows] == [
        ("ended", "no_gre", 3),
        ("refused", "no_slot", 2),
        ("connection", "timeout", 2),
    ]
    assert "protocol 47" in rows[0]["advice"]


def sample(at: float, active: int, octets: int, no_gre: int, lost: int) -> Sample:
    counts = {(kind, name): 0 for kind, known in KINDS.items() for name in known}
    counts["ended", "no_gre"] = no_gre
    return Sample(
        at=at,
        unix=1_700_000_000 + at,
        sessions={"starting": 1, "active": active, "finishing": 0},
        cpu_percent=5.0,
        workers=((octets, 2 * octets, 0),),
        counts=counts,
        radius=(Line("one", "auth", lost + 10, lost, 10 * lost, float(lost)),),
    )


def test_history_makes_rates() -> None:
    history = History()
    assert history.series()["times"] == []
    assert history.increase(600) == (0.0, {})
    for n in range(4):
        history.add(sample(100.0 + 10 * n, n, 1000 * n, n, n))
    series = history.series()
    assert series["every_s"] == EVERY_S
    assert series["sessions"] == [2, 3, 4]
    assert series["workers"][0]["rx_bits_per_s"] == [800.0, 800.0, 800.0]
    assert series["workers"][0]["tx_bits_per_s"] == [1600.0] * 3
    assert series["ended_per_s"] == [0.1, 0.1, 0.1]
    window, recent = history.increase(600)
    assert (window, recent["ended", "no_gre"]) == (30.0, 3)
    assert history.increase(10)[1]["ended", "no_gre"] == 1
    assert history.lines(20) == {("one", "auth"): (2, 0.1)}
    rows = by_cause(history, sample(0, 0, 0, 5, 0).counts)["causes"]
    assert [(row["cause"], row["recent"], row["total"]) for row in rows] == [("no_gre", 3, 5)]


def test_history_is_short_and_survives_counters_that_begin_anew() -> None:
    history = History()
    for n in range(2 * KEPT):
        history.add(sample(10.0 * n, 0, 0, 0, 5))
    assert len(history.series()["times"]) == KEPT - 1
    history.add(sample(20.0 * KEPT, 0, 0, 0, 1))
    assert history.lines(300)["one", "auth"] == (1, 0.1)


def test_newest_failures_are_few_and_nameless() -> None:
    calls = [past(n, "alice", "no_gre") for n in range(50)]
    rows = newest([past(99, "bob", "user_request"), *calls])
    assert len(rows) == 20
    assert "alice" not in json.dumps(rows)
