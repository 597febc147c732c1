"""The edge: certificate, redirect, protocols, headers."""

from __future__ import annotations

import json
import ssl
from collections.abc import Callable
from socket import create_connection
from typing import Any

import httpx2 as httpx
import pytest
from testinfra.host import Host


def test_the_authority_issued_the_certificate_for_the_sites_name(
    testbed: dict[str, str], certificate: Callable[[], dict[str, Any]]
) -> None:
    served = certificate()
    assert ("DNS", testbed["site"]) in served["subjectAltName"]
    issuer = {key: value for part in served["issuer"] for key, value in part}
    assert "Pebble" in issuer["commonName"]


def test_http_leads_to_https_for_good(testbed: dict[str, str]) -> None:
    answer = httpx.get(f"http://{testbed['site']}/some/page?x=1")
    assert answer.status_code in {301, 308}
    assert answer.headers["location"] == f"https://{testbed['site']}/some/page?x=1"


def test_http3_is_spoken_and_advertised(outside: Host, testbed: dict[str, str], http: httpx.Client) -> None:
    assert 'h3=":443"' in http.get("/").headers["alt-svc"]
    answer = outside.run(
        "curl -sSk --http3-only -o /dev/null -w '%%{http_version} %%{http_code}' https://%s/", testbed["site"]
    )
    assert answer.stdout == "3 200", answer.stderr


@pytest.mark.parametrize("protocol", ["tls1", "tls1_1"])
def test_old_tls_is_refused(outside: Host, testbed: dict[str, str], protocol: str) -> None:
    attempt = outside.run(
        "openssl s_client -connect %s:443 -servername %s -%s -cipher ALL:@SECLEVEL=0 </dev/null",
        testbed["vps_address"], testbed["site"], protocol,
    )  # fmt: skip
    assert attempt.rc != 0
    assert "Cipher is (NONE)" in attempt.stdout


def test_a_strangers_name_gets_no_certificate_of_ours(testbed: dict[str, str]) -> None:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with create_connection((testbed["vps_address"], 443), timeout=10) as plain, pytest.raises(ssl.SSLError):
        context.wrap_socket(plain, server_hostname="stranger.example")


def test_pages_and_api_carry_the_security_headers(http: httpx.Client) -> None:
    for path in ("/", "/api/auth/me"):
        headers = http.get(path).headers
        assert "max-age=63072000" in headers["strict-transport-security"], path
        assert headers["x-content-type-options"] == "nosniff", path
        assert "server" not in headers, path
    policy = http.get("/").headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


def test_a_request_is_logged_once_under_the_id_its_answer_carries(http: httpx.Client, vps: Host) -> None:
    path = "/api/auth/log-probe"
    request_id = http.get(path).headers["x-request-id"]
    lines = vps.check_output("journalctl --no-pager -o cat --since -60s").splitlines()
    hits = [json.loads(line) for line in lines if request_id in line]
    assert [hit["downstream_X-Request-Id"] for hit in hits] == [request_id]
    assert (hits[0]["RequestPath"], hits[0]["DownstreamStatus"]) == (path, 404)
