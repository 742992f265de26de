"""Headless Chromium by its DevTools protocol: opens a page, types, reads, takes pictures."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

OPTIONS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--no-default-browser-check",
    "--hide-scrollbars",
    "--remote-debugging-port=0",
)
START_S = 60.0
KEYS = {"Tab": 9, "Enter": 13, "/": 191, " ": 32}


def chromium() -> str:
    """Its path; where there is none, CI fails and others skip."""
    found = shutil.which("chromium")
    if found is None:
        if os.environ.get("CI"):
            pytest.fail("chromium is not installed; see TEST_PACKAGES in ops/environment.sh")
        pytest.skip("needs chromium")
    return found


class Tab:
    """One page, and what went wrong in it."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self.errors: list[str] = []
        self._reader = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async for frame in self._socket:
            message = json.loads(frame.data)
            if "id" in message:
                self._answers.pop(message["id"]).set_result(message)
                continue
            method, words = message["method"], message.get("params", {})
            if method == "Runtime.exceptionThrown":
                self.errors.append(json.dumps(words["exceptionDetails"])[:500])
            elif method == "Log.entryAdded" and words["entry"]["level"] == "error":
                self.errors.append(words["entry"]["text"] + " " + words["entry"].get("url", ""))
            elif method == "Runtime.consoleAPICalled" and words["type"] in ("error", "warning"):
                self.errors.append(json.dumps(words["args"])[:500])

    async def ask(self, method: str, **words: Any) -> dict[str, Any]:
        """A command's result."""
        number = next(self._numbers)
        self._answers[number] = asyncio.get_running_loop().create_future()
        answer = self._answers[number]
        await self._socket.send_json({"id": number, "method": method, "params": words})
        message = await asyncio.wait_for(answer, 30)
        assert "error" not in message, message
        result: dict[str, Any] = message["result"]
        return result

    async def js(self, text: str) -> Any:
        """The value of an expression in the page."""
        found = await self.ask("Runtime.evaluate", expression=text, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    async def until(self, text: str, seconds: float = 30.0) -> None:
        """Wait until an expression is true."""
        end = asyncio.get_running_loop().time() + seconds
        while not await self.js(f"Boolean({text})"):
            page = await self.js("document.body.innerText")
            assert asyncio.get_running_loop().time() < end, f"never true: {text}\n{page}"
            await asyncio.sleep(0.1)

    async def go(self, url: str) -> None:
        """Open a page."""
        await self.ask("Page.navigate", url=url)

    async def key(self, key: str, *, shift: bool = False) -> None:
        """Press and let go."""
        words: dict[str, Any] = {"key": key, "windowsVirtualKeyCode": KEYS[key]}
        text = {"Enter": "\r", "/": "/", " ": " "}.get(key)
        words["modifiers"] = 8 if shift else 0
        await self.ask(
            "Input.dispatchKeyEvent", type="keyDown", **words, **({"text": text} if text else {})
        )
        await self.ask("Input.dispatchKeyEvent", type="keyUp", **words)

    async def write(self, text: str) -> None:
        """Type into what has the focus."""
        await self.ask("Input.insertText", text=text)

    async def look(self, width: int = 1280, height: int = 1000, *, dark: bool = False) -> None:
        """Size of the window, and which colours."""
        await self.ask(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 700,
        )
        colours = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.ask("Emulation.setEmulatedMedia", features=[colours])

    async def picture(self) -> bytes:
        """The whole page as PNG."""
        found = await self.ask("Page.captureScreenshot", captureBeyondViewport=True)
        return base64.b64decode(found["data"])


@contextlib.asynccontextmanager
async def browser() -> AsyncIterator[Tab]:
    """A Chromium of its own with one tab; ended and its profile removed."""
    with tempfile.TemporaryDirectory(prefix="pptpcon-browser-", ignore_cleanup_errors=True) as home:
        process = subprocess.Popen(  # noqa: ASYNC220 - done once, and soon
            [chromium(), *OPTIONS, f"--user-data-dir={home}", "about:blank"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            async with asyncio.timeout(START_S):
                port = Path(home) / "DevToolsActivePort"
                while not port.exists() or not port.read_text().count("\n"):
                    assert process.poll() is None, "chromium ended at once"
                    await asyncio.sleep(0.05)
                number = int(port.read_text().split()[0])
            async with aiohttp.ClientSession() as session:
                async with session.get(f"http://127.0.0.1:{number}/json/list") as answer:
                    pages = [p for p in await answer.json() if p["type"] == "page"]
                async with session.ws_connect(
                    pages[0]["webSocketDebuggerUrl"], max_msg_size=0
                ) as socket:
                    tab = Tab(socket)
                    for domain in ("Page", "Runtime", "Log"):
                        await tab.ask(f"{domain}.enable")
                    yield tab
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
