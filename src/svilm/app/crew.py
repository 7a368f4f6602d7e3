"""Work in threads, and what it made: both bounded, so that many requests make the server slow at worst."""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock
from typing import Any, TypeVar

from svilm.app.refusal import busy

T = TypeVar("T")


class Crew:
    """At most ``workers`` threads at work and ``waiting`` jobs in front of them; raises a Refusal for one more."""

    def __init__(self, workers: int, waiting: int) -> None:
        self.most, self.inside, self.lock = workers + waiting, 0, Lock()
        self.threads = ThreadPoolExecutor(workers, thread_name_prefix="svilm-app")

    async def do(self, work: Callable[[], T]) -> T:
        """What ``work()`` returns or raises; its place is free when it has ended, even if nobody waits any more."""
        with self.lock:
            if self.inside >= self.most:
                raise busy()
            self.inside += 1
        future = self.threads.submit(work)
        future.add_done_callback(self._leave)
        return await asyncio.wrap_future(future)

    def close(self) -> None:
        """End the threads; jobs that have not begun are dropped."""
        self.threads.shutdown(wait=False, cancel_futures=True)

    def _leave(self, _: "Future[Any]") -> None:
        with self.lock:
            self.inside -= 1


class Shelf:
    """Bytes by key, of which those used last are kept, up to ``most_bytes``; each is made once at a time."""

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes, self.held_bytes = most_bytes, 0
        self.held: OrderedDict[Hashable, bytes] = OrderedDict()
        self.making: dict[Hashable, asyncio.Future[bytes]] = {}

    async def get(self, key: Hashable, make: Callable[[], Awaitable[bytes]]) -> bytes:
        """The bytes under ``key``, made by ``make()`` where they are not there.  What it raises is not kept."""
        if key in self.held:
            self.held.move_to_end(key)
            return self.held[key]
        if key not in self.making:
            self.making[key] = task = asyncio.ensure_future(make())
            task.add_done_callback(lambda done: self._made(key, done))
        return await asyncio.shield(self.making[key])  # one who leaves does not stop it for the others

    def _made(self, key: Hashable, done: "asyncio.Future[bytes]") -> None:
        del self.making[key]
        if done.cancelled() or done.exception() is not None:
            return
        self.held[key] = done.result()
        self.held_bytes += len(self.held[key])
        while self.held_bytes > self.most_bytes:
            self.held_bytes -= len(self.held.popitem(last=False)[1])
