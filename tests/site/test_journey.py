"""From sign-up to sign-out over the public HTTPS address."""

from __future__ import annotations

import httpx2 as httpx
from testinfra.host import Host

from tests.support import Mailbox, Visitor, join, new_account


def test_a_visitor_signs_up_verifies_signs_in_edits_the_profile_and_signs_out(
    http: httpx.Client, mailbox: Mailbox, testbed: dict[str, str]
) -> None:
    ada = new_account()
    assert http.post("/api/auth/register", json={**ada, "name": "Ada"}).status_code == 202
    early = http.post("/api/auth/login", json=ada)
    assert (early.status_code, early.json()["code"]) == (401, "credentials_invalid")

    link = mailbox.link_for(ada["email"])
    assert link.startswith(f"https://{testbed['site']}/verify#token=")
    assert http.get(link).status_code == 200
    proof = {"token": link.split("token=")[1], "password": ada["password"]}
    assert http.post("/api/auth/verify", json=proof).json()["verified"] is True

    signed_in = http.post("/api/auth/login", json=ada)
    assert signed_in.status_code == 200
    bearer = {"Authorization": f"Bearer {signed_in.json()['access_token']}"}
    cookies = signed_in.headers.get_list("set-cookie")
    assert [cookie.partition("=")[0] for cookie in cookies] == ["__Host-refresh_token", "refresh_token"]
    for cookie in cookies:
        assert {"httponly", "secure", "samesite=strict"} <= set(cookie.lower().split("; "))

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


def test_one_sign_up_sends_one_mail(http: httpx.Client, mailbox: Mailbox) -> None:
    assert mailbox.count_for(join(http, mailbox).email) == 1


def test_whose_address_a_stranger_registered_first_keeps_it(http: httpx.Client, mailbox: Mailbox) -> None:
    ada, password = new_account(), "the password of a stranger"
    assert http.post("/api/auth/register", json={**ada, "password": password}).status_code == 202
    click = {"token": mailbox.link_for(ada["email"]).split("token=")[1]}
    assert http.post("/api/auth/verify", json=click).json()["code"] == "password_required"
    mine = http.post("/api/auth/verify", json={**click, "password": ada["password"]})
    assert mine.json()["code"] == "credentials_invalid"
    # By the mailbox alone, with a password of her own.
    assert http.post("/api/auth/password/forgotten", json={"email": ada["email"]}).status_code == 202
    chosen = {"token": mailbox.link_for(ada["email"], "reset").split("token=")[1], "password": ada["password"]}
    assert http.post("/api/auth/password/reset", json=chosen).json()["verified"] is True
    assert http.post("/api/auth/login", json={**ada, "password": password}).status_code == 401
    assert http.post("/api/auth/login", json=ada).status_code == 200


def test_a_known_address_and_an_unknown_one_get_the_same_answer(http: httpx.Client, visitor: Visitor) -> None:
    known, unknown = (
        http.post("/api/auth/register", json={"email": email, "password": visitor.password})
        for email in (visitor.email, new_account()["email"])
    )
    assert known.status_code == unknown.status_code == 202
    assert known.json() | {"email": ""} == unknown.json() | {"email": ""}


def test_a_new_password_ends_every_other_session(http: httpx.Client, mailbox: Mailbox) -> None:
    ada = join(http, mailbox)
    elsewhere, here = ada.sign_in(), ada.sign_in()
    change = {"current": ada.password, "new": new_account()["password"]}
    assert http.post("/api/auth/password/change", json=change, headers=here).status_code == 204
    assert http.get("/api/users/me", headers=elsewhere).status_code == 401
    assert http.get("/api/users/me", headers=here).status_code == 200
    assert http.post("/api/auth/refresh").status_code == 200


def test_a_page_of_another_site_cannot_use_a_session(http: httpx.Client, visitor: Visitor) -> None:
    visitor.sign_in()
    for headers in ({"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
        answer = http.post("/api/auth/refresh", headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (403, "cross_site")
    assert http.post("/api/auth/refresh").status_code == 200


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
