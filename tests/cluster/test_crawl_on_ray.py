"""A crawl on two Ray nodes: one budget for all workers, and workers, nodes and drivers that are really killed."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from pipeline.catalogue import read_records
from pipeline.records import VideoRecord
from pipeline.sandbox.faults import Fault
from pipeline.sandbox.server import SandboxServer, serve
from pipeline.sandbox.world import World, WorldConfig
from pipeline.store import FolderStore

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]
TREE = Path(__file__).parents[2]
ACTIONS = ("swing", "push ups", "hula hoop", "biking", "rowing")
KEY = "sandbox"
UNTIL = ("--until", "1750000000")
WORKERS = 8
ANSWERS_IN_FLIGHT = 10
"""Of one worker, at most: what its journal does not hold yet."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SandboxServer]:
    config = WorldConfig(num_videos=420, actions=ACTIONS, trouble_rate=0.1)
    with serve(World(config, cache=tmp_path_factory.mktemp("world"))) as server:
        yield server
        assert server.counters.errors == []


@pytest.fixture(autouse=True)
def _calm_weather(server: SandboxServer) -> Iterator[None]:
    server.set_faults([])
    yield
    server.set_faults([])


def environment(server: SandboxServer) -> dict[str, str]:
    shell = {name: value for name, value in os.environ.items() if name != "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"}
    return {
        **shell, "FLICKR_REST_URL": server.rest_url, "FLICKR_CONTACT": "a@b.c", "FLICKR_API_KEY": KEY,
        "PYTHONUNBUFFERED": "1",
    }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Node:
    """A Ray node with four slots; all its processes carry its mark in their environment."""

    process: "subprocess.Popen[bytes]"
    mark: str


@dataclass(frozen=True, slots=True)
class Nodes:
    """A cluster of one head and one more node."""

    address: str
    head: Node
    other: Node


@contextlib.contextmanager
def two_nodes(server: SandboxServer) -> Iterator[Nodes]:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    folder = tempfile.mkdtemp(prefix="ray", dir="/tmp")  # its sockets' paths must be short
    address, ray = f"127.0.0.1:{port}", str(Path(sys.executable).with_name("ray"))
    how = ["--node-ip-address=127.0.0.1", "--num-cpus=4", "--disable-usage-stats", "--block"]
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)

        def start(name: str, *more: str) -> Node:
            mark = f"NODE_OF_THIS_TEST={folder}/{name}"
            env = {**environment(server), "NODE_OF_THIS_TEST": f"{folder}/{name}"}
            command = [ray, "start", *more, *how]
            process = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            node = Node(process, mark)
            stack.callback(kill_node, node)
            return node

        head = start("head", "--head", f"--port={port}", "--include-dashboard=false", f"--temp-dir={folder}")
        wait_for(lambda: _listens(port))
        other = start("other", f"--address={address}")
        wait_for(lambda: any("/raylet " in command for command in processes_of(other).values()))
        yield Nodes(address, head, other)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def wait_for(happened: Callable[[], bool], seconds: float = 120.0) -> None:
    ends = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < ends, "waited too long"
        time.sleep(0.02)


def processes_of(node: Node) -> dict[int, str]:
    """The command lines of all processes of a node."""
    found = {}
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            if folder.name.isdecimal() and node.mark.encode() in (folder / "environ").read_bytes().split(b"\0"):
                found[int(folder.name)] = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
    return found


def workers_of(node: Node) -> list[int]:
    """Actors that do units there."""
    return [pid for pid, command in processes_of(node).items() if "ray::_Actor" in command]


def kill_node(node: Node) -> None:
    for pid in processes_of(node):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    node.process.wait()


def crawl(root: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "jobs.cli", "crawl", str(root), *UNTIL, "--min-videos", "1", *more]


def run(server: SandboxServer, *command: str) -> str:
    done = subprocess.run(command, cwd=TREE, env=environment(server), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


def vocabulary(server: SandboxServer, root: Path) -> None:
    run(server, sys.executable, "-m", "jobs.cli", "vocabulary", str(root), "--names", *ACTIONS)


def asked(server: SandboxServer) -> Counter[str]:
    return Counter(call.method for call in server.counters.log if call.host == "api")


def timeless(root: Path) -> list[VideoRecord]:
    """The root's records but for when they were crawled, and for its own hashes of comment authors."""
    return [
        replace(
            record,
            found=tuple(replace(f, crawled=0) for f in record.found),
            comments=tuple(replace(c, author_hash="") for c in record.comments),
        )
        for record in read_records(FolderStore(root))
    ]


FAST = ("--flickr.calls-per-hour", "10000000")


@pytest.fixture(scope="module")
def calm(server: SandboxServer, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Counter[str]]:
    """A crawl that nothing disturbed, in one process."""
    root = tmp_path_factory.mktemp("calm")
    vocabulary(server, root)
    before = asked(server)
    run(server, *crawl(root, *FAST))
    return root, asked(server) - before


def test_eight_workers_on_two_nodes_keep_one_budget(server: SandboxServer, tmp_path: Path) -> None:
    vocabulary(server, tmp_path)
    per_second, burst = 12.0, 5
    pace = ("--flickr.calls-per-hour", str(per_second * 3600), "--where.workers", str(WORKERS), "--plan", "C")
    before = asked(server)
    with two_nodes(server) as nodes:
        command = crawl(tmp_path, *pace, "--where.ray-address", nodes.address)
        process = subprocess.Popen(command, cwd=TREE, env=environment(server), stdout=subprocess.DEVNULL)
        most = Counter[str]()
        while process.poll() is None:
            for node in (nodes.head, nodes.other):
                most[node.mark] = max(most[node.mark], len(workers_of(node)))
            time.sleep(0.1)
    assert process.returncode == 0
    assert min(most.values()) >= WORKERS // 2, "both nodes take part"
    spent = asked(server) - before
    assert spent["flickr.photos.getSizes"] == len(read_records(FolderStore(tmp_path))) > 400
    calls = sorted(call.at for call in server.counters.log if call.host == "api")[-spent.total() :]
    for window in (0.5, 1.0, 2.0, 5.0, 10.0):
        assert most_within(calls, window) <= burst + window * per_second + 1, window
    assert most_within(calls, 5.0) >= 0.7 * 5.0 * per_second, "the budget is used"


def most_within(times: list[float], seconds: float) -> int:
    most, first = 0, 0
    for last, time_of_call in enumerate(times):
        while times[first] <= time_of_call - seconds:
            first += 1
        most = max(most, last - first + 1)
    return most


def test_a_killed_worker_node_and_driver_cost_only_what_was_in_flight(
    server: SandboxServer, calm: tuple[Path, Counter[str]], tmp_path: Path
) -> None:
    vocabulary(server, tmp_path)
    before = asked(server)
    server.set_faults([Fault(kind="hang", host="api", seconds=0.15)])  # there shall be a half way
    with two_nodes(server) as nodes:
        on_ray = (*FAST, "--where.workers", str(WORKERS), "--where.ray-address", nodes.address)
        driver = subprocess.Popen(crawl(tmp_path, *on_ray), cwd=TREE, env=environment(server), start_new_session=True)
        at_work = "info/journal/*"
        wait_for(lambda: len(list(tmp_path.glob(at_work))) > 3)
        os.kill(workers_of(nodes.head)[0], signal.SIGKILL)
        wait_for(lambda: any(tmp_path.glob("info/commits/*")))
        assert len(workers_of(nodes.other)) == 4
        kill_node(nodes.other)
        wait_for(lambda: any(tmp_path.glob("sizes/journal/*")))
        assert driver.poll() is None, "it goes on without the node"
        os.kill(driver.pid, signal.SIGKILL)
        driver.wait()
        assert not (tmp_path / "records").exists()
        server.set_faults([])
        run(server, *crawl(tmp_path, *on_ray[:-4], "--where.workers", "4", "--where.ray-address", nodes.address))
    assert timeless(tmp_path) == timeless(calm[0])
    spent = asked(server) - before
    twice = spent - calm[1]
    assert twice.pop("flickr.test.echo") == 1
    assert twice.total() <= (1 + 4 + WORKERS) * ANSWERS_IN_FLIGHT, twice
    assert not calm[1] - spent
