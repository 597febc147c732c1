"""From sign-up to sign-out over the public HTTPS address."""

from __future__ import annotations

import httpx2 as httpx
from testinfra.host import Host

from tests.support import Mailbox, Visitor, new_account


def test_a_visitor_signs_up_verifies_signs_in_edits_the_profile_and_signs_out(
    http: httpx.Client, mailbox: Mailbox, testbed: dict[str, str]
) -> None:
    ada = new_account()
    assert http.post("/api/auth/register", json={**ada, "name": "Ada"}).status_code == 201
    early = http.post("/api/auth/login", json=ada)
    assert (early.status_code, early.json()["code"]) == (403, "email_unverified")

    link = mailbox.link_for(ada["email"])
    assert link.startswith(f"https://{testbed['site']}/verify#token=")
    assert http.get(link).status_code == 200
    assert http.post("/api/auth/verify", json={"token": link.split("token=")[1]}).json()["verified"] is True

    signed_in = http.post("/api/auth/login", json=ada)
    assert signed_in.status_code == 200
    bearer = {"Authorization": f"Bearer {signed_in.json()['access_token']}"}
    cookie = signed_in.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "secure" in cookie
    assert "samesite=strict" in cookie

    assert http.get("/api/users/me", headers=bearer).json()["email"] == ada["email"]
    changed = http.patch("/api/users/me", headers=bearer, json={"bio": "First programmer"})
    assert changed.status_code == 200
    assert http.get("/api/users/me", headers=bearer).json()["bio"] == "First programmer"

    renewed = http.post("/api/auth/refresh")
    assert renewed.status_code == 200
    bearer = {"Authorization": f"Bearer {renewed.json()['access_token']}"}
    assert http.post("/api/auth/logout", headers=bearer).status_code == 204
    assert http.get("/api/users/me", headers=bearer).status_code == 401
    assert http.post("/api/auth/refresh").status_code == 401


def test_an_email_registers_once(http: httpx.Client, visitor: Visitor) -> None:
    again = http.post("/api/auth/register", json={"email": visitor.email, "password": visitor.password})
    assert again.status_code == 409
    assert again.json()["code"] == "email_taken"


def test_one_sign_up_sends_one_mail(visitor: Visitor, mailbox: Mailbox) -> None:
    assert mailbox.count_for(visitor.email) == 1


def test_the_link_in_the_mail_leaves_its_token_in_no_log(visitor: Visitor, mailbox: Mailbox, vps: Host) -> None:
    link = mailbox.link_for(visitor.email)
    assert visitor.http.get(link).status_code == 200
    assert link.split("token=")[1] not in vps.check_output("journalctl --no-pager -o cat --since -120s")


def test_a_wrong_password_is_refused_as_a_problem_document(http: httpx.Client, visitor: Visitor) -> None:
    answer = http.post("/api/auth/login", json={"email": visitor.email, "password": "not the password"})
    assert answer.status_code == 401
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["code"] == "credentials_invalid"


def test_a_request_carries_its_id_through_the_edge(http: httpx.Client) -> None:
    answer = http.get("/api/auth/me")
    assert answer.status_code == 401
    assert answer.headers["x-request-id"] == answer.json()["request_id"]


def test_health_and_metrics_of_the_services_are_not_public(http: httpx.Client) -> None:
    for path in ("/readyz", "/metrics"):
        assert "text/html" in http.get(path).headers["content-type"], path


def test_the_front_page_and_every_asset_it_names_are_served(http: httpx.Client) -> None:
    page = http.get("/")
    assert page.status_code == 200
    assets = [part.split('"')[0] for part in page.text.split('="')[1:] if part.startswith("/assets/")]
    assert assets
    for asset in assets:
        answer = http.get(asset)
        assert answer.status_code == 200, asset
        assert "immutable" in answer.headers["cache-control"], asset
