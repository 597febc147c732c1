"""The site as a person uses it: Debian's Chromium, which trusts the authority and nothing else out of the ordinary."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from httpx2 import Client
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.support import CHROMIUM, CHROMIUM_ARGUMENTS, Mailbox, Visitor, join, new_account

ARTEFACTS = Path(__file__).resolve().parents[2] / "artifacts"


@pytest.fixture(scope="module")
def browser(authority: Path, testbed: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    home = tmp_path_factory.mktemp("home")
    store = home / ".pki" / "nssdb"
    store.mkdir(parents=True)
    for command in (["-N", "--empty-password"], ["-A", "-t", "C,,", "-n", "site", "-i", str(authority)]):
        subprocess.run(["certutil", "-d", f"sql:{store}", *command], check=True, capture_output=True)
    rules = f"--host-resolver-rules=MAP {testbed['site']} {testbed['vps_address']}"
    program = Path(CHROMIUM)
    if os.geteuid() == 0:
        # In the outside host's network: a page that loads while this machine gets or loses a network is given up.
        asked = ["docker", "inspect", "--format", "{{.State.Pid}}", testbed["outside_container"]]
        process = subprocess.run(asked, check=True, capture_output=True, text=True).stdout.strip()
        program = home / "chromium"
        program.write_text(f'#!/bin/sh\nexec nsenter --target {process} --net {CHROMIUM} "$@"\n')
        program.chmod(0o755)
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(
            executable_path=program, args=[*CHROMIUM_ARGUMENTS, rules], env={**os.environ, "HOME": str(home)}
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


def test_a_person_signs_up_verifies_signs_in_edits_the_profile_and_signs_out(page: Page, mailbox: Mailbox) -> None:
    ada = new_account()
    page.goto("/")
    expect(page.get_by_role("heading", level=1)).to_be_visible()
    picture(page, "1-front-page")

    page.get_by_role("link", name="Create an account").click()
    page.get_by_label("Name (optional)").fill("Ada Lovelace")
    page.get_by_label("Email").fill(ada["email"])
    page.get_by_label("Password").fill(ada["password"])
    picture(page, "2-sign-up")
    page.get_by_role("button", name="Create account").click()
    expect(page.get_by_role("heading", name="Check your mail")).to_be_visible()

    page.goto(mailbox.link_for(ada["email"]))
    expect(page.get_by_role("heading", name="Verify your email")).to_be_visible()
    page.get_by_label("Password").fill(ada["password"])
    picture(page, "3-verify")
    page.get_by_role("button", name="Verify and sign in").click()
    expect(page.get_by_text("Your email is verified.")).to_be_visible()
    page.get_by_role("button", name="Sign out").click()
    # Until the server has said so, another page load would open the account again.
    expect(page.get_by_text("You are signed out.")).to_be_visible()

    page.goto("/signin")
    page.get_by_label("Email").fill(ada["email"])
    page.get_by_label("Password").fill("a wrong password")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_text("The email or the password is not right")).to_be_visible()
    expect(page.get_by_label("Email")).to_have_value(ada["email"])
    picture(page, "4-sign-in-refused")
    page.get_by_label("Password").fill(ada["password"])
    page.get_by_role("button", name="Sign in").click()

    expect(page.get_by_role("heading", name="Your profile")).to_be_visible()
    page.get_by_role("button", name="Edit profile").click()
    page.get_by_label("Name (optional)").fill("Ada Lovelace")
    page.get_by_label("About you (optional)").fill("First programmer; keeps a light on for ships coming in late.")
    page.get_by_role("button", name="Save changes").click()
    expect(page.get_by_text("Your profile is saved.")).to_be_visible()
    picture(page, "5-profile")

    page.reload()
    expect(page.get_by_text("keeps a light on for ships")).to_be_visible()

    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_text("You are signed out.")).to_be_visible()
    picture(page, "6-signed-out")
    page.goto("/profile")
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()


def test_a_person_chooses_a_new_password_by_mail_and_changes_it(page: Page, http: Client, mailbox: Mailbox) -> None:
    ada, chosen = join(http, mailbox), new_account()["password"]
    page.goto("/signin")
    page.get_by_role("link", name="Forgotten your password?").click()
    page.get_by_label("Email").fill(ada.email)
    picture(page, "7-forgotten")
    page.get_by_role("button", name="Send the link").click()
    expect(page.get_by_text("a mail is on its way")).to_be_visible()

    page.goto(mailbox.link_for(ada.email, "reset"))
    page.get_by_label("New password").fill("password1234")
    page.get_by_role("button", name="Save the password").click()
    expect(page.get_by_text("among the first that are guessed")).to_be_visible()
    picture(page, "8-reset-refused")
    page.get_by_label("New password").fill(chosen)
    page.get_by_role("button", name="Save the password").click()
    expect(page.get_by_text("Your password is changed.")).to_be_visible()

    expect(page.get_by_label("Email")).to_have_value(ada.email)
    page.get_by_label("Password").fill(chosen)
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("link", name="Change your password").click()
    page.get_by_label("Current password").fill(chosen)
    page.get_by_label("New password").fill(new_account()["password"])
    picture(page, "9-change-password")
    page.get_by_role("button", name="Change password").click()
    expect(page.get_by_text("Other devices are signed out.")).to_be_visible()


def test_signing_in_needs_no_mouse(page: Page, visitor: Visitor) -> None:
    page.goto("/signin")
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    page.get_by_label("Email").focus()
    page.keyboard.type(visitor.email)
    page.keyboard.press("Tab")
    page.keyboard.type(visitor.password)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Your profile")).to_be_focused()
