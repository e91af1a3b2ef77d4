"""What tests of the web half share: a small sandbox world, its key, permits without waits, and a raw HTTP server."""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from pipeline.limits import LocalPermits, Rate
from pipeline.sandbox.world import World, WorldConfig


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Sixty short videos, some in trouble; their files are rendered when they are asked for."""
    actions = ("juggling balls", "push ups", "swing")
    config = WorldConfig(num_videos=60, actions=actions, min_seconds=0.4, max_seconds=0.8, trouble_rate=0.4)
    return World(config, cache=tmp_path_factory.mktemp("world"))


@pytest.fixture
def sandbox_key(monkeypatch: pytest.MonkeyPatch) -> str:
    """A key of the sandbox in the environment."""
    monkeypatch.setenv("FLICKR_API_KEY", "k3y0fth3s4ndb0x")
    monkeypatch.setenv("FLICKR_API_SECRET", "s3cr3t0fth3s4ndb0x")
    return "k3y0fth3s4ndb0x"


@pytest.fixture
def permits() -> LocalPermits:
    """Permits that are there at once, unless the other side throttles."""
    return LocalPermits({}, default=Rate(per_second=1e6, burst=100))


RawServer = Callable[..., str]


@pytest.fixture
def raw_server() -> Iterator[RawServer]:
    """Starts servers: `raw_server(first, second, ...)` answers each connection with the next bytes; gives its URL."""
    with contextlib.ExitStack() as stack:
        yield lambda *answers: stack.enter_context(_answering(answers))


@contextlib.contextmanager
def _answering(answers: tuple[bytes, ...]) -> Iterator[str]:
    listener = socket.create_server(("127.0.0.1", 0))

    def work() -> None:
        for answer in answers:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                connection.recv(65536)
                connection.sendall(answer)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()
