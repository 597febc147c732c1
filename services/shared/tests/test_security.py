import asyncio
import threading
from collections.abc import Awaitable, Iterator

import pytest

from shared.errors import Overloaded, Unavailable
from shared.security import Passwords


@pytest.fixture
def passwords() -> Iterator[Passwords]:
    passwords = Passwords(queue_limit=2)
    yield passwords
    passwords.close()


async def test_only_the_right_password_matches(passwords: Passwords) -> None:
    hashed = await passwords.hash("correct horse")
    assert await passwords.verify("correct horse", hashed)
    assert not await passwords.verify("Correct horse", hashed)
    assert not await passwords.verify("correct horse", "no hash at all")


async def test_nobodys_password_is_never_right(passwords: Passwords) -> None:
    assert not await passwords.verify("the hash of nobody", None)


async def test_the_same_letters_from_another_keyboard_match(passwords: Passwords) -> None:
    hashed = await passwords.hash("cafe\u0301 au lait")
    assert await passwords.verify("caf\u00e9 au lait", hashed)


async def test_who_comes_when_the_queue_is_full_is_told_to_come_back(passwords: Passwords) -> None:
    many = await asyncio.gather(*(passwords.hash("x") for _ in range(5)), return_exceptions=True)
    refused = [each for each in many if isinstance(each, Unavailable)]
    assert len(refused) == 3
    assert refused[0].headers["Retry-After"]
    assert await passwords.hash("x")


async def test_hashing_leaves_the_event_loop_free(passwords: Passwords) -> None:
    hashing = asyncio.create_task(passwords.hash("x"))
    turns = 0
    while not hashing.done():
        await asyncio.sleep(0)
        turns += 1
    assert turns > 10


async def test_what_can_wait_comes_after_every_sign_in_and_takes_no_slot(passwords: Passwords) -> None:
    done: list[str] = []

    async def note(name: str, work: Awaitable[object]) -> None:
        await work
        done.append(name)

    hashed = await passwords.hash("x")
    sign_ups = [note("sign-up", passwords.hash_later("x")) for _ in range(5)]
    # Fills the queue, which has two places.
    sign_ins = [note("sign-in", passwords.verify("x", hashed)) for _ in range(2)]
    await asyncio.gather(*sign_ups, *sign_ins)
    # One sign-up may have begun before the sign-ins came.
    assert "sign-in" not in done[3:]
    assert done.count("sign-up") == 5


async def test_what_sign_ins_never_let_come_to_its_turn_is_given_up_as_refused_by_load(
    passwords: Passwords, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.security.TURN_SECONDS", 0)
    others = threading.Event()
    passwords._executor.submit(others.wait)
    try:
        with pytest.raises(Overloaded):
            await passwords.hash_later("x")
    finally:
        others.set()
    assert await passwords.hash("x")


async def test_whoever_waits_when_the_service_stops_is_let_go(passwords: Passwords) -> None:
    waiting = [asyncio.ensure_future(passwords.hash_later("x")) for _ in range(3)]
    await asyncio.sleep(0)
    passwords.close()
    outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    assert isinstance(outcomes[-1], asyncio.CancelledError)
