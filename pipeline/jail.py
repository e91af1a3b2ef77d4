"""The child process in which strangers' bytes are parsed: limits on memory, time and output, no secrets, may die.

Parent and child speak JSON lines over pipes. The child serves one video after another; a crash, a hang or an
allocation bomb costs that one video and a restart.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import resource
import selectors
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pipeline.errors import Dropped
from pipeline.transcode import Profile, transcode

_START_SECONDS = 120.0
_KEPT_ENVIRONMENT = ("PATH", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH")


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What the child may use for one video."""

    memory_bytes: int = 4 << 30
    """Address space, so that an allocation bomb fails where it stands."""
    output_bytes: int = 1 << 30
    cpu_seconds: int = 600
    wall_seconds: float = 900.0


class Jail:
    """A child process that transcodes; starts at the first use, restarts after a death."""

    def __init__(self, limits: Limits | None = None) -> None:
        self._limits = limits or Limits()
        self._child: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End the child."""
        child, self._child = self._child, None
        if child is not None:
            child.kill()
            child.wait()
            for pipe in (child.stdin, child.stdout):
                if pipe is not None:
                    with contextlib.suppress(BrokenPipeError):  # closing flushes what a dead child never read
                        pipe.close()

    def transcode(self, source: Path, target: Path, profile: Profile) -> dict[str, Any]:
        """Run pipeline.transcode.transcode in the child.

        Raises:
            Dropped: what the child raised, `decoder_crashed` if it died, `decoder_timeout` if it took too long.
            OSError: the disk is full.
            RuntimeError: the child cannot start.
        """
        if self._child is not None and self._child.poll() is not None:
            self.close()  # it died while it was idle: no fault of this video's
        child = self._child or self._start()
        assert child.stdin is not None
        request = {"source": str(source), "target": str(target), "profile": asdict(profile)}
        try:
            child.stdin.write(json.dumps(request).encode() + b"\n")
            child.stdin.flush()
            answer = self._answer(child, seconds=self._limits.wall_seconds)
        except BrokenPipeError:
            answer = None
        if answer is None:
            status = child.wait()
            self.close()
            raise Dropped("decoder_crashed", f"the child ended with status {status}")
        if "disk_full" in answer:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))
        if "dropped" in answer:
            raise Dropped(answer["dropped"], answer["detail"])
        return answer

    def _answer(self, child: subprocess.Popen[bytes], *, seconds: float) -> dict[str, Any] | None:
        """One line from the child, or None if it died."""
        assert child.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(child.stdout, selectors.EVENT_READ)
            if not selector.select(timeout=seconds):
                self.close()
                raise Dropped("decoder_timeout", f"more than {seconds:.0f} s")
        line = child.stdout.readline()
        answer: dict[str, Any] | None = json.loads(line) if line.endswith(b"\n") else None
        return answer

    def _start(self) -> subprocess.Popen[bytes]:
        environment = {name: os.environ[name] for name in _KEPT_ENVIRONMENT if name in os.environ}
        environment["PYTHONPATH"] = str(Path(__file__).parents[1])
        command = [sys.executable, "-m", "pipeline.jail", json.dumps(asdict(self._limits))]
        self._child = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
        )
        if self._answer(self._child, seconds=_START_SECONDS) is None:
            self.close()
            raise RuntimeError(f"the transcoding child cannot start: try {' '.join(command)!r}")
        return self._child


def _limit(kind: int, wanted: int) -> None:
    """Lower a limit, at most to what this process is allowed already (a scheduler may have set it)."""
    hard = resource.getrlimit(kind)[1]
    resource.setrlimit(kind, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))


def _limit_process(limits: Limits) -> None:
    _limit(resource.RLIMIT_AS, limits.memory_bytes)
    _limit(resource.RLIMIT_FSIZE, limits.output_bytes)
    _limit(resource.RLIMIT_CORE, 0)


def _limit_cpu(limits: Limits) -> None:
    """CPU time counts from the child's start, so the limit moves on with each video."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    seconds = int(used.ru_utime + used.ru_stime) + limits.cpu_seconds
    _limit(resource.RLIMIT_CPU, seconds)


def _serve(request: dict[str, Any]) -> dict[str, Any]:
    try:
        return transcode(Path(request["source"]), Path(request["target"]), Profile(**request["profile"]))
    except Dropped as drop:
        return {"dropped": drop.reason, "detail": drop.detail}
    except MemoryError:
        return {"dropped": "decoder_crashed", "detail": "out of the memory it is allowed"}
    except Exception as error:  # the edge of this process: whatever strange bytes provoke is this video's fate
        if getattr(error, "errno", None) == errno.ENOSPC:
            return {"disk_full": True}
        return {"dropped": "decode_failed", "detail": type(error).__name__}


def _main() -> None:
    limits = Limits(**json.loads(sys.argv[1]))
    _limit_process(limits)
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # whatever a library prints must not be an answer

    def tell(answer: dict[str, Any]) -> None:
        answers.write(json.dumps(answer).encode() + b"\n")
        answers.flush()

    tell({"ready": True})
    for line in sys.stdin.buffer:
        _limit_cpu(limits)
        tell(_serve(json.loads(line)))


if __name__ == "__main__":
    _main()
