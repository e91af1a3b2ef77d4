"""Serve a sandbox world by hand: `python -m pipeline.sandbox --videos 200 --seed 0 --port 8080`."""

from __future__ import annotations

import argparse
import sys
import threading
from pathlib import Path

from pipeline.errors import UserError
from pipeline.sandbox.server import serve
from pipeline.sandbox.world import World, WorldConfig, default_cache


def main(arguments: list[str] | None = None) -> int:
    """Serve until Ctrl-C and tell how to point the crawler here."""
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.sandbox", description="A small Flickr of our own, on this machine only."
    )
    parser.add_argument("--videos", type=int, default=240, help="videos in the world (default 240)")
    parser.add_argument("--seed", type=int, default=0, help="another seed is another world (default 0)")
    parser.add_argument("--port", type=int, default=8080, help="0 is any free port (default 8080)")
    parser.add_argument(
        "--cache", type=Path, default=default_cache(), help="folder for rendered videos (default %(default)s)"
    )
    chosen = parser.parse_args(arguments)
    try:
        world = World(WorldConfig(num_videos=chosen.videos, seed=chosen.seed), cache=chosen.cache)
        with serve(world, port=chosen.port) as server:
            _tell(f"{len(world)} videos at {server.base_url} until Ctrl-C. In the shell that crawls:\n")
            _tell(f"  export FLICKR_REST_URL={server.rest_url}\n  export FLICKR_API_KEY=sandbox\n")
            threading.Event().wait()
    except KeyboardInterrupt:
        _tell("\nstopped")
    except (UserError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    return 0


def _tell(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
