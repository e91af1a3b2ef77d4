"""The server: a world behind Flickr's REST dialect, its play and media URLs, and its faults; loopback only."""

from __future__ import annotations

import json
import logging
import socket
import struct
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from pipeline.errors import UserError
from pipeline.sandbox.api import Api
from pipeline.sandbox.counters import Clock, Counters
from pipeline.sandbox.faults import CALL_FAULTS, REPLY_FAULTS, WIRE_FAULTS, Fault, FaultPlan
from pipeline.sandbox.replies import Call, Reply, head_of, packed
from pipeline.sandbox.routes import Site, call_of
from pipeline.sandbox.search import Index, SearchQuirks
from pipeline.sandbox.world import World

logger = logging.getLogger(__name__)

_DRIP_SECONDS = 0.05
_GONE = (ConnectionError, TimeoutError)
_IDLE_SECONDS = 60.0


class SandboxServer:
    """A server that runs; made by `serve`."""

    def __init__(self, world: World, sockets: _Sockets, *, site: Site, plan: FaultPlan) -> None:
        self.world = world
        self.clock: Clock = site.clock
        self.counters: Counters = site.counters
        self.index: Index = site.api.index
        self.base_url = site.api.base_url
        self.rest_url = f"{self.base_url}/services/rest/"
        self._site = site
        self._plan = plan
        self._stop = threading.Event()
        sockets.owner = self

    def set_faults(self, faults: Iterable[Fault], *, seed: int = 0) -> None:
        """Replace the faults; their counts begin anew."""
        self._plan = FaultPlan(faults, seed=seed)

    def reply(self, call: Call) -> tuple[Reply, Fault | None]:
        """What the call is answered, with the fault that befell it."""
        if call.path == "/__admin__/faults":
            return self._replace_faults(call), None
        fault = self._plan.due(call)
        if fault is None:
            return packed(self._site.reply(call), call), None
        if fault.kind in CALL_FAULTS:
            return packed(self._site.reply(CALL_FAULTS[fault.kind](call, fault)), call), fault
        fail = REPLY_FAULTS[fault.kind]
        if fault.kind in WIRE_FAULTS:
            return fail(packed(self._site.reply(call), call), call, fault), fault
        return packed(fail(self._site.reply(call), call, fault), call), fault

    def _replace_faults(self, call: Call) -> Reply:
        try:
            faults = [Fault(**told) for told in json.loads(call.params["faults"])]
        except (ValueError, TypeError, KeyError) as error:
            text = f"faults is a JSON list of objects with the fields of Fault: {error}"
            return Reply(status=400, body=text.encode(), content_type="text/plain")
        self.set_faults(faults)
        return Reply(body=json.dumps({"faults": len(faults)}).encode(), content_type="application/json")

    def pause(self, seconds: float) -> None:
        """Sleep, but wake up when the server stops."""
        self._stop.wait(seconds)

    def stop(self) -> None:
        """End all pauses."""
        self._stop.set()


class _Sockets(ThreadingHTTPServer):
    """Keeps track of open connections, so that shutting down ends them and every thread."""

    daemon_threads = False
    block_on_close = True
    request_queue_size = 128
    owner: SandboxServer

    def __init__(self, port: int) -> None:
        self._open: set[socket.socket] = set()
        self._abrupt: set[socket.socket] = set()
        self._lock = threading.Lock()
        super().__init__(("127.0.0.1", port), _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._open.discard(request)
            abrupt = request in self._abrupt
            self._abrupt.discard(request)
        if abrupt:
            self.close_request(request)
        else:
            super().shutdown_request(request)

    def no_goodbye(self, request: socket.socket) -> None:
        """Have the connection closed without being shut down first."""
        with self._lock:
            self._abrupt.add(request)

    def end_connections(self) -> None:
        """Wake every thread that waits for a client."""
        with self._lock:
            for request in self._open:
                with suppress(OSError):
                    request.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no error; anything else is one of ours."""
        error = sys.exc_info()[1]
        if error is not None and not isinstance(error, _GONE):
            self.owner.counters.errors.append(error)
            logger.exception("the sandbox failed to answer %s", client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = _IDLE_SECONDS
    server: _Sockets

    def log_message(self, *words: Any) -> None:
        """Nothing is printed, as the base class would; what was asked is in the counters."""

    def _answer(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        length = headers.get("content-length", "0")
        body = self.rfile.read(int(length) if length.isdecimal() else 0)
        owner = self.server.owner
        try:
            call = call_of(self.command, self.path, headers, body)
        except UserError as error:
            self._send(Reply(status=400, body=str(error).encode(), content_type="text/plain", end="close"))
            return
        owner.counters.enter(call)
        status, fault = "gone", None
        try:
            reply, fault = owner.reply(call)
            self._send(reply)
            status = str(reply.status)
        finally:
            owner.counters.leave(call, status, fault.kind if fault else None)

    do_GET = do_POST = do_HEAD = _answer  # noqa: N815

    def _send(self, reply: Reply) -> None:
        if reply.wait_seconds:
            self.server.owner.pause(reply.wait_seconds)
        self.close_connection = self.close_connection or reply.end != "keep"
        if reply.end == "close_first":
            return
        if reply.end == "reset_first":
            self._reset()
            return
        head, body = head_of(reply), b"" if self.command == "HEAD" else reply.body
        if reply.drip_seconds and body:
            self.connection.sendall(head)
            self._drip(body, reply.drip_seconds)
        else:
            self.connection.sendall(head + body)

    def _reset(self) -> None:
        # A linger time of zero makes the close a reset, unless something was shut down before.
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.server.no_goodbye(self.connection)

    def _drip(self, body: bytes, seconds: float) -> None:
        pieces = min(max(int(seconds / _DRIP_SECONDS), 1), len(body))
        size, ends = -(-len(body) // pieces), time.monotonic() + seconds
        for start in range(0, len(body), size):
            self.connection.sendall(body[start : start + size])
            self.server.owner.pause(min(_DRIP_SECONDS, max(ends - time.monotonic(), 0)))


@contextmanager
def serve(
    world: World, *, faults: Iterable[Fault] = (), quirks: SearchQuirks | None = None, port: int = 0,
    signature_seconds: float = 180.0, keys: Iterable[str] | None = None, hourly_limit: int | None = None, seed: int = 0,
) -> Iterator[SandboxServer]:  # fmt: skip
    """Serve the world on 127.0.0.1 until the block ends; port 0 is any free one.

    `signature_seconds`: how long a media URL lives. `keys`: the valid API keys, None is any. `hourly_limit`: calls
    that a key may make within an hour of the server's clock before it gets 429. `seed`: of the faults' chances.
    """
    sockets = _Sockets(port)
    base_url = f"http://127.0.0.1:{sockets.server_address[1]}"
    site = Site(
        api=Api(world=world, index=Index(world, quirks or SearchQuirks()), base_url=base_url), clock=Clock(),
        counters=Counters(),
        signature_seconds=signature_seconds, keys=None if keys is None else frozenset(keys), hourly_limit=hourly_limit,
    )  # fmt: skip
    server = SandboxServer(world, sockets, site=site, plan=FaultPlan(faults, seed=seed))
    thread = threading.Thread(target=sockets.serve_forever, kwargs={"poll_interval": 0.05}, name="sandbox")
    thread.start()
    try:
        yield server
    finally:
        server.stop()
        sockets.shutdown()
        sockets.end_connections()
        sockets.server_close()
        thread.join()
