"""Bounded work and bounded memory."""

import asyncio
import threading

import pytest

from svilm.app.crew import Crew, Shelf
from svilm.app.refusal import Refusal


def test_one_too_many_is_refused_and_places_come_back() -> None:
    crew, hold = Crew(1, 2), threading.Event()

    async def run() -> None:
        jobs = [asyncio.ensure_future(crew.do(hold.wait)) for _ in range(3)]
        await asyncio.sleep(0)
        with pytest.raises(Refusal) as refused:
            await crew.do(lambda: 1)
        assert refused.value.status == 503
        assert refused.value.headers["Retry-After"]
        jobs[2].cancel()  # one who leaves gives the place back before the work would begin
        hold.set()
        assert await asyncio.gather(*jobs[:2]) == [True, True]
        assert await crew.do(lambda: 2) == 2
        with pytest.raises(ZeroDivisionError):
            await crew.do(lambda: 1 // 0)

    asyncio.run(run())
    crew.close()
    assert crew.inside == 0


def test_a_shelf_makes_each_thing_once_and_forgets_the_oldest() -> None:
    made: list[str] = []

    async def run() -> None:
        shelf = Shelf(100)

        async def make(name: str) -> bytes:
            made.append(name)
            await asyncio.sleep(0)
            return name.encode() * 40

        same = await asyncio.gather(*(shelf.get("a", lambda: make("a")) for _ in range(5)))
        assert set(same) == {b"a" * 40}
        await shelf.get("b", lambda: make("b"))
        await shelf.get("a", lambda: make("a"))
        await shelf.get("c", lambda: make("c"))
        assert made == ["a", "b", "c"]
        assert set(shelf.held) == {"a", "c"}
        assert shelf.held_bytes == 80
        await shelf.get("large", lambda: make("large"))
        assert shelf.held_bytes <= 100

    asyncio.run(run())


def test_a_shelf_keeps_no_failure() -> None:
    async def run() -> None:
        shelf = Shelf(100)

        async def fail() -> bytes:
            raise Refusal(410, "gone", "look elsewhere")

        for _ in range(2):
            with pytest.raises(Refusal):
                await shelf.get("a", fail)
        assert not shelf.making

    asyncio.run(run())
