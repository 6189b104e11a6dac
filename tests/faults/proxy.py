"""A TCP proxy that breaks connections as networks do: it cuts them, delays them, or lets them hang half open."""

import asyncio
import contextlib
import threading
from typing import Self

from tests.servers import free_port

CHUNK_BYTES = 1 << 14


class Proxy:
    """Listens on 127.0.0.1:`port` for as long as the context lasts and passes bytes to `target` and back.

    `cut`: all connections end now, as with a reset. `delay`: every piece comes so much later. `half_open`: nothing
    comes through any more and nobody is told; new connections are accepted and hang. `heal` ends a delay and lets go
    what hung, which is then cut.
    """

    def __init__(self, target: tuple[str, int]) -> None:
        self.port = free_port()
        self._target = target
        self._delay_seconds = 0.0
        self._ready = threading.Event()
        self._writers: set[asyncio.StreamWriter] = set()

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="proxy")
        self._thread.start()
        assert self._ready.wait(10), "the proxy does not listen"
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join(10)
        assert not self._thread.is_alive()

    def cut(self) -> None:
        self._loop.call_soon_threadsafe(self._cut)

    def delay(self, seconds: float) -> None:
        self._delay_seconds = seconds

    def half_open(self) -> None:
        self._loop.call_soon_threadsafe(self._flowing.clear)

    def heal(self) -> None:
        self._delay_seconds = 0.0
        self._loop.call_soon_threadsafe(self._let_go)

    @property
    def num_connections(self) -> int:
        return len(self._writers) // 2

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._ended = asyncio.Event()
        self._flowing = asyncio.Event()
        self._flowing.set()
        server = await asyncio.start_server(self._connected, "127.0.0.1", self.port)
        self._ready.set()
        await self._ended.wait()
        server.close()
        self._let_go()
        self._cut()
        await server.wait_closed()
        # Those that were just cut end by themselves.
        others = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.gather(*others, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, back = await asyncio.open_connection(*self._target)
        except OSError:  # the target is down: so is the proxy, for whoever connects
            writer.transport.abort()
            return
        self._writers |= {writer, back}
        try:
            await asyncio.gather(self._pass(reader, back), self._pass(there, writer))
        finally:
            self._writers -= {writer, back}
            for end in (writer, back):
                end.transport.abort()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(CHUNK_BYTES):
                await self._flowing.wait()
                if self._delay_seconds:
                    await asyncio.sleep(self._delay_seconds)
                writer.write(data)
                await writer.drain()
        # One end said goodbye: the other is told.
        writer.transport.abort()

    def _cut(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    def _let_go(self) -> None:
        if not self._flowing.is_set():
            self._cut()
            self._flowing.set()
