"""The table of rooms, held against the imports."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

TREE = Path(__file__).parents[2]
ALLOWED = {
    "pipeline": {"pipeline"},
    "models": {"models"},
    "cluster": {"cluster", "pipeline", "models"},
    "jobs": {"jobs", "pipeline", "models"},
}
TORCH_IN_PIPELINE = {"clips", "crops", "decode", "augment", "loader", "entities"}
FILES = sorted(path for room in ALLOWED for path in (TREE / room).rglob("*.py"))


def imports(path: Path, *, top_level_only: bool = False) -> Iterator[str]:
    tree = ast.parse(path.read_text())
    nodes = tree.body if top_level_only else ast.walk(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(TREE)))
def test_room_imports_only_what_the_table_allows(path: Path) -> None:
    room = path.relative_to(TREE).parts[0]
    imported = {name.partition(".")[0] for name in imports(path)}
    allowed = ALLOWED[room] | ({"cluster"} if path.name == "launch.py" and room == "jobs" else set())
    assert imported & set(ALLOWED) <= allowed
    if room != "cluster":
        assert "ray" not in imported
    if room == "pipeline" and path.stem not in TORCH_IN_PIPELINE:
        assert "torch" not in {name.partition(".")[0] for name in imports(path, top_level_only=True)}


@pytest.mark.parametrize("module", ["jobs.build", "jobs.crawl", "pipeline.build", "pipeline.enrich"])
def test_a_crawl_or_build_worker_starts_without_torch_or_ray(module: str) -> None:
    code = f"import sys, {module}; assert not {{'torch', 'ray'}} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=TREE)
    assert done.returncode == 0, done.stderr


def test_no_test_package_shadows_ours() -> None:
    assert not list((TREE / "tests").rglob("__init__.py"))
