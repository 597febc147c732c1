import pytest
from jose import jwt

from shared.tokens import Claims, KeyRing, TokenInvalid, key_id

OLD, NEW = "an old key of thirty-two letters", "a new key, also thirty-two long."
ADA = Claims(sub="1", email="ada@example.com", sid="s", name="Ada")


def test_who_signed_in_is_who_is_read() -> None:
    assert KeyRing(NEW, []).verify(KeyRing(NEW, []).sign(ADA, 60)) == ADA


def test_rotating_the_key_logs_nobody_out() -> None:
    token = KeyRing(OLD, []).sign(ADA, 60)
    assert KeyRing(NEW, [OLD]).verify(token) == ADA
    with pytest.raises(TokenInvalid):
        KeyRing(NEW, []).verify(token)


def test_a_token_runs_out() -> None:
    with pytest.raises(TokenInvalid):
        KeyRing(NEW, []).verify(KeyRing(NEW, []).sign(ADA, -1))


@pytest.mark.parametrize(
    ("change", "algorithm"),
    [({"aud": "other"}, "HS256"), ({"iss": "other"}, "HS256"), ({"exp": None}, "HS256"), ({}, "HS512")],
)
def test_a_token_for_somebody_else_is_refused(change: dict[str, str | None], algorithm: str) -> None:
    payload = {"iss": "berth", "aud": "berth", "sub": "1", "email": "e", "sid": "s", "exp": 9999999999}
    payload = {name: value for name, value in (payload | change).items() if value is not None}
    token = jwt.encode(payload, NEW, algorithm, headers={"kid": key_id(NEW)})
    with pytest.raises(TokenInvalid):
        KeyRing(NEW, []).verify(token)


def test_an_unsigned_token_is_refused() -> None:
    header, payload, _ = KeyRing(NEW, []).sign(ADA, 60).split(".")
    with pytest.raises(TokenInvalid):
        KeyRing(NEW, []).verify(f"{header}.{payload}.")


def test_a_key_id_does_not_give_the_key_away() -> None:
    assert key_id(NEW) not in NEW
    assert key_id(NEW) != key_id(OLD)
