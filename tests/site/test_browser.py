"""The site as a person uses it: Debian's Chromium, which trusts the authority and nothing else out of the ordinary."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ARTEFACTS
from playwright.sync_api import Browser, Page, sync_playwright

QUIET = [
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="module")
def browser(authority: Path, testbed: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    home = tmp_path_factory.mktemp("home")
    store = home / ".pki" / "nssdb"
    store.mkdir(parents=True)
    for command in (["-N", "--empty-password"], ["-A", "-t", "C,,", "-n", "site", "-i", str(authority)]):
        subprocess.run(["certutil", "-d", f"sql:{store}", *command], check=True, capture_output=True)
    rules = f"--host-resolver-rules=MAP {testbed['site']} {testbed['vps_address']}"
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(
            executable_path="/usr/bin/chromium",
            args=[*QUIET, *sandbox, rules],
            env={**os.environ, "HOME": str(home)},
        )
        yield running
        running.close()


@pytest.fixture(params=[(1280, 800), (360, 740)], ids=["desktop", "phone"])
def page(request: pytest.FixtureRequest, browser: Browser, testbed: dict[str, str]) -> Iterator[Page]:
    width, height = request.param
    context = browser.new_context(viewport={"width": width, "height": height}, base_url=f"https://{testbed['site']}")
    page = context.new_page()
    page.set_default_timeout(20_000)
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on(
        "console",
        lambda said: complaints.append(said.text) if "Content Security Policy" in said.text else None,
    )
    yield page
    context.close()
    assert not complaints


def picture(page: Page, name: str) -> None:
    """Keep what a person sees; nothing may stick out sideways."""
    ARTEFACTS.mkdir(exist_ok=True)
    assert page.viewport_size
    width = page.viewport_size["width"]
    page.screenshot(path=ARTEFACTS / f"{name}-{width}.png")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
