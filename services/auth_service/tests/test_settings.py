from ipaddress import ip_network

import pytest

from auth_service.settings import AuthSettings
from auth_service.tests.conftest import KEY, PRIVATE_KEY, PUBLIC_KEY
from shared.settings import load_settings


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "ENVIRONMENT": "dev",
        "MONGO_URI": "mongodb://mongo",
        "REDIS_URI": "redis://redis",
        "JWT_SECRET_KEY": KEY,
        "JWT_PRIVATE_KEY": PRIVATE_KEY,
        "JWT_PUBLIC_KEYS": PUBLIC_KEY,
    }.items():
        monkeypatch.setenv(name, value)


def test_trusted_proxies_are_addresses_and_networks_with_commas_between(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRUSTED_PROXIES", "203.0.113.9, 2001:db8::/32")
    assert load_settings(AuthSettings).trusted_proxies == [ip_network("203.0.113.9"), ip_network("2001:db8::/32")]


def test_without_a_value_no_proxy_is_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRUSTED_PROXIES", "")
    assert load_settings(AuthSettings).trusted_proxies == []


def test_a_name_is_no_trusted_proxy(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("TRUSTED_PROXIES", "the.cdn")
    with pytest.raises(SystemExit):
        load_settings(AuthSettings)
    assert "TRUSTED_PROXIES" in capsys.readouterr().err
