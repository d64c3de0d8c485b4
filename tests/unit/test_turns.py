"""First come, first served between node bodies, and nobody is left waiting."""

from __future__ import annotations

import asyncio

import pytest

from wtb_prefect.infrastructure.workflow.turns import Line, Turn

LONG_AGO = float("-inf")


def test_short_bodies_take_no_turn() -> None:
    """Two stretches whose bodies have just begun do not wait for each other."""

    async def main() -> bool:
        line = Line()
        for turn in (Turn(line), Turn(line)):
            await asyncio.wait_for(turn.take(), 1)
        return True

    assert asyncio.run(main())


def test_turns_are_given_in_the_order_asked_for() -> None:
    """And one at a time."""
    order: list[str] = []

    async def stretch(name: str, line: Line) -> None:
        turn = Turn(line, _since=LONG_AGO)
        await turn.take()
        order.append(f"{name} in")
        await asyncio.sleep(0)
        order.append(f"{name} out")
        turn.give_up()

    async def main() -> None:
        line = Line()
        await asyncio.gather(*(stretch(name, line) for name in "abc"))

    asyncio.run(main())
    assert order == ["a in", "a out", "b in", "b out", "c in", "c out"]


def test_taking_twice_is_taking_once_and_giving_up_nothing_is_no_harm() -> None:
    """A stretch gives up its turn wherever it may have one."""

    async def main() -> bool:
        line = Line()
        first, second = (Turn(line, _since=LONG_AGO) for _ in range(2))
        await first.take()
        await first.take()
        first.give_up()
        first.give_up()
        await asyncio.wait_for(second.take(), 1)
        return True

    assert asyncio.run(main())


@pytest.mark.parametrize("granted", [False, True])
def test_a_cancelled_stretch_leaves_the_line(granted: bool) -> None:
    """Cancelled while waiting, or in the moment its turn came: the next one gets it."""

    async def main() -> bool:
        line = Line()
        await line.acquire()
        leaving = asyncio.create_task(line.acquire())
        await asyncio.sleep(0)
        if granted:
            line.release()
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        if not granted:
            line.release()
        await asyncio.wait_for(line.acquire(), 1)
        return True

    assert asyncio.run(main())
