"""The proxy does to a connection what its methods say."""

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from tests.faults.proxy import Proxy


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    """In front of an echo."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=echo, args=(listener,), daemon=True).start()
        with Proxy(listener.getsockname()) as made:
            yield made
        listener.shutdown(socket.SHUT_RDWR)


def echo(listener: socket.socket) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        threading.Thread(target=answer, args=(connection,), daemon=True).start()


def answer(connection: socket.socket) -> None:
    with connection:
        try:
            while data := connection.recv(1024):
                connection.sendall(data)
        except ConnectionError:
            return


def ask(connection: socket.socket) -> bytes:
    connection.sendall(b"hello")
    return connection.recv(1024)


def rest(connection: socket.socket) -> bytes:
    """What still comes until the connection ends, with a goodbye or without."""
    try:
        return connection.recv(1024)
    except ConnectionResetError:
        return b""


def connect(proxy: Proxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=0.5)


def test_it_passes_bytes_both_ways(proxy: Proxy) -> None:
    with connect(proxy) as one, connect(proxy) as other:
        assert ask(one) == ask(other) == b"hello"
        assert proxy.num_connections == 2


def test_cut_ends_what_is_open_and_takes_new_ones(proxy: Proxy) -> None:
    with connect(proxy) as connection:
        ask(connection)
        proxy.cut()
        assert rest(connection) == b""
    with connect(proxy) as connection:
        assert ask(connection) == b"hello"


def test_delay_is_what_it_says(proxy: Proxy) -> None:
    with connect(proxy) as connection:
        proxy.delay(0.1)
        began = time.monotonic()
        ask(connection)
        assert 0.2 <= time.monotonic() - began < 0.45


def test_half_open_hangs_without_a_word_until_it_heals(proxy: Proxy) -> None:
    with connect(proxy) as old, connect(proxy) as new:
        ask(old)
        proxy.half_open()
        for connection in (old, new):
            with pytest.raises(TimeoutError):
                ask(connection)
        proxy.heal()
        assert rest(old) == b"", "what hung is lost, and so is its connection"
    with connect(proxy) as connection:
        assert ask(connection) == b"hello"
