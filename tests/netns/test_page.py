"""The status page in a real browser: content, keyboard, states; and no error in its console."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ops.ranges import format_address
from ops.settings import Server
from tests.netns.browser import Tab, browser
from tests.ops.console.rig import Console, Shared, console
from tests.ops.console.test_api import TOKEN, with_token
from tests.ops.console.test_show import dispatcher, open_dir, past

__all__ = ["open_dir"]
pytestmark = pytest.mark.netns
SESSIONS = 10_000

Body = Callable[[Tab], Awaitable[None]]


def in_browser(rig: Console, body: Body) -> None:
    async def whole() -> None:
        async with browser() as tab:
            await tab.look()
            await tab.go(f"http://127.0.0.1:{rig.port}/")
            await tab.until("document.querySelector('#workers table')")
            await body(tab)
            assert tab.errors == []

    asyncio.run(whole())


@contextmanager
def beating(shared: Shared) -> Iterator[threading.Event]:
    """Heartbeats of a dispatcher and two workers, until the event is set."""
    silent = threading.Event()
    shared.table.set_pid("dispatcher", os.getpid())
    shared.table.set_config(True)
    for worker in (0, 1):
        shared.table.set_worker(worker, os.getpid(), True)

    def beat() -> None:
        while not silent.is_set():
            shared.table.dispatcher_beat()
            for worker in (0, 1):
                shared.table.control_beat(worker)
            silent.wait(0.5)

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        yield silent
    finally:
        silent.set()
        thread.join()


def chosen() -> Any:
    return replace(with_token(), server=Server(user="nobody", name="lac1"))


async def read(tab: Tab, id_: str) -> str:
    text: str = await tab.js(f"document.getElementById({id_!r}).innerText")
    return text


def test_ten_thousand_sessions_and_a_dead_radius_server(open_dir: Path) -> None:
    shared = Shared(12_000)
    for i in range(SESSIONS):
        name = f"<b>{i}</b>" if i == 77 else f"customer{i:05d}"
        shared.up(i, name, format_address((10 << 24) + i + 2), worker=i % 2)
    shared.count("ended_no_gre", 3)
    calls = [past(n, "customer00001", "no_gre") for n in range(3)]

    async def body(tab: Tab) -> None:
        assert await tab.js("document.title") == "lac1 - pptpcon, 10,000 sessions"
        assert await read(tab, "sessions") == "10,000"
        notes = await read(tab, "notes")
        assert "RADIUS for accounting does not answer: one (dead 7 s)" in notes
        assert "10,000 of 12,000 slots" in notes
        assert await read(tab, "state") == "serving, with faults"
        assert "Control connection up, but no GRE came" in await read(tab, "causes")
        assert "protocol 47" in await read(tab, "causes")
        await tab.until("document.querySelector('#newest summary')")
        # No name before a token is given.
        assert "customer" not in await tab.js("document.body.innerText")
        # By keyboard alone: / goes to the search, Tab to the token, Enter asks.
        await tab.key("/")
        assert await tab.js("document.activeElement.id") == "search"
        await tab.write("CUSTOMER0001")
        await tab.key("Enter")
        await tab.until("document.getElementById('answer').className === 'bad'")
        assert "Give a token" in await read(tab, "answer")
        assert ["401 (Unauthorized)" in error for error in tab.errors] == [True]
        tab.errors.clear()
        assert await tab.js("document.activeElement.id") == "token"
        await tab.write(TOKEN)
        await tab.key("Enter")
        await tab.until("document.querySelectorAll('#found tbody tr').length === 10")
        assert await read(tab, "answer") == "10 sessions with “CUSTOMER0001”"
        # To the first session id, and all about it; the heading gets the focus.
        for _ in range(3):
            await tab.key("Tab")
        assert await tab.js("document.activeElement.dataset.sid")
        await tab.key("Enter")
        await tab.until("document.querySelector('#one dl')")
        assert "of customer00010" in await tab.js("document.activeElement.innerText")
        # All of them, fifty a page.
        await tab.js("document.getElementById('search').value = ''")
        await tab.js("document.getElementById('form').requestSubmit()")
        await tab.until("document.querySelectorAll('#found tbody tr').length === 50")
        assert await read(tab, "range") == "1 to 50 of 10,000"
        assert "<b>77</b>" in await read(tab, "found")  # a name is text
        await tab.js("document.getElementById('after').click()")
        await tab.until("document.getElementById('range').innerText.startsWith('51 to 100')")
        # Nothing sticks out of a small screen, in either colours.
        for dark in (False, True):
            await tab.look(360, 700, dark=dark)
            assert await tab.js("document.documentElement.scrollWidth") <= 360
        assert len(await tab.picture()) > 20_000
        assert (
            await tab.js("document.querySelectorAll('img,script[src],link[href^=http]').length")
            == 0
        )

    with (
        beating(shared),
        console(shared, open_dir, chosen()) as rig,
        dispatcher(open_dir, 0, *calls),
    ):
        in_browser(rig, body)


def test_states(open_dir: Path) -> None:
    """No session, history, dispatcher silent, stopping, no contact."""
    shared = Shared()

    async def body(tab: Tab) -> None:
        assert await read(tab, "sessions") == "0"
        assert await read(tab, "state") == "serving, with faults"  # the rig's accounting server
        assert "Nothing failed so far." in await read(tab, "causes")
        unnamed = (
            "[...document.querySelectorAll('input,button,svg[role=img]')].filter(e =>"
            " !(e.labels && e.labels.length) && !e.textContent"
            " && !e.getAttribute('aria-label')).length"
        )
        assert await tab.js(unnamed) == 0
        await tab.until("document.getElementById('when').innerText.includes('as of')")
        await contrast(tab)
        await tab.until("document.querySelector('#g-sessions path')")
        silent.set()
        await tab.until("document.getElementById('state').innerText === 'not serving'")
        assert "No new calls: dispatcher silent for" in await read(tab, "notes")
        shared.table.set_stopping()
        await tab.until("document.getElementById('state').innerText === 'stopping'")
        rig.process.kill()
        await tab.until("document.getElementById('state').innerText === 'no contact'")
        assert "What stands below is old" in await read(tab, "notes")
        # That the connection failed is what the browser says of it, and nothing else.
        assert all("ERR_" in error for error in tab.errors), tab.errors
        tab.errors.clear()

    with beating(shared) as silent:
        rig = Console(shared, open_dir, chosen())
        rig.wait_ready()
        try:
            in_browser(rig, body)
        finally:
            rig.process.kill()
            rig.process.wait()
            rig.keeper.close()


CONTRAST = r"""
(() => {
  const part = v => (v /= 255) <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
  const light = c => {
    const [r, g, b] = c.match(/[\d.]+/g).map(part);
    return .2126 * r + .7152 * g + .0722 * b;
  };
  const back = e => {
    for (; e; e = e.parentElement) {
      const c = getComputedStyle(e).backgroundColor;
      if (!/, 0\)$/.test(c)) return c;
    }
    return "rgb(255, 255, 255)";
  };
  const bad = [];
  for (const e of document.querySelectorAll("body *")) {
    const says = [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim());
    if (!says || !e.getClientRects().length || e.closest("script")) continue;
    const a = light(getComputedStyle(e).color), b = light(back(e));
    const ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
    if (ratio < 4.5) bad.push(e.tagName + " " + e.id + e.className + " " + ratio.toFixed(2));
  }
  return bad;
})()
"""


async def contrast(tab: Tab) -> None:
    """WCAG AA, 4.5 to 1, for all text, in both colours."""
    for dark in (False, True):
        await tab.look(dark=dark)
        assert await tab.js(CONTRAST) == []
