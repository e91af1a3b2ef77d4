import re
from pathlib import Path

import pytest

from jobs.cli import VERBS
from jobs.recipes import FINETUNE, PRETRAIN

TREE = Path(__file__).parents[2]
README = (TREE / "README.md").read_text()


@pytest.mark.parametrize("room", ["pipeline", "models", "cluster", "jobs"])
def test_the_tree_has_a_caption_for_every_file(room: str) -> None:
    for path in (TREE / room).rglob("*.py"):
        if path.name != "__init__.py":
            assert re.search(rf"^ +{re.escape(path.name)} +\S", README, re.MULTILINE), path


def test_verbs_and_presets_it_names_are_there() -> None:
    assert all(f"`{verb}`" in README for verb in VERBS)
    named = set(re.findall(r"`((?:multilabel|finetune|ssl)_[a-z_]+)`", README))
    assert named <= {*PRETRAIN, *FINETUNE}


def test_every_dependency_has_its_reason() -> None:
    project = (TREE / "pyproject.toml").read_text()
    names = re.findall(r'^    "([a-z0-9-]+)[\[>=]', project, re.MULTILINE)
    table = README.partition("## Dependencies")[2]
    assert names
    assert all(re.search(rf"\b{name}\b", table) for name in names), names
