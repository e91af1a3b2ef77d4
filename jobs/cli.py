"""The `noisyactions` command: one verb, one module of `jobs`, imported only when it is asked for."""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import difflib
import importlib
import io
import json
import logging
import os
import re
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import tyro

from pipeline.errors import Transient, UserError

VERBS = {
    "demo": "the whole story on a small sandbox world, in minutes, with a report at its end",
    "doctor": "look over this machine: versions, device, Ray, S3, Flickr key",
    "vocabulary": "action names from label files -> concepts and search queries",
    "plan": "what a crawl will cost before it starts: calls, hours, bytes",
    "crawl": "queries -> records of videos, from Flickr",
    "build": "records, a folder, a table or a list of ids -> WebDataset shards",
    "fsck": "check every shard of a root against its commit",
    "annotate": "countries, and entities from titles and tags",
    "report": "a self-contained page about a root: tables, figures, film strips, results",
    "split": "nested training splits, a validation split, and their class list",
    "pretrain": "self-supervised or multi-label pretraining on a split",
    "finetune": "a network on UCF101 or HMDB51, from pretrained weights or from scratch",
    "evaluate": "video-level accuracy of a finetuned network",
    "sweep": "many runs at once over losses and seeds, with Ray Tune",
    "reproduce": "a table of the paper, each row a run of the verbs above",
    "bench": "measure the parts of the system against their limits and their peers",
}

_USAGE_ERROR = 2


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command and leave with its exit code: 0 well, 2 the user's mistake, 3 some units set aside."""
    code = _run(list(sys.argv[1:] if arguments is None else arguments))
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    # Not sys.exit: threads of Arrow's can abort the process in their destructors, which once in some hundred runs
    # turned the exit code into SIGABRT's.
    os._exit(code)


def _run(arguments: list[str]) -> int:
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    try:
        if not arguments or arguments[0] in ("-h", "--help"):
            sys.stdout.write(_overview())
            return 0 if arguments else _USAGE_ERROR
        return _run_verb(arguments[0], arguments[1:])
    except UserError as error:
        sys.stderr.write(f"noisyactions: {' '.join(str(error).split())}\n")
        return _USAGE_ERROR
    except Transient as error:
        sys.stderr.write(f"noisyactions: {error}; run the same command again to go on\n")
        return 1
    except BrokenPipeError:  # the reader of `noisyactions ... | head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("\nnoisyactions: stopped; run the same command again to go on\n")
        return 130


def _overview() -> str:
    lines = [f"  {verb:<11}{caption}" for verb, caption in VERBS.items()]
    return "\n".join([
        "usage: noisyactions VERB ... (noisyactions VERB --help teaches one)",
        "",
        "From action names to noisy web video to a pretrained network. Each verb reads and writes one root, a folder",
        "or s3://bucket/prefix; run again, it goes on where it stopped.",
        "",
        *lines,
        "",
    ])  # fmt: skip


def _run_verb(verb: str, arguments: list[str]) -> int:
    if verb not in VERBS:
        near = difflib.get_close_matches(verb, VERBS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"one of {', '.join(VERBS)}"
        raise UserError(f"unknown verb {verb!r}: {hint}")
    module = importlib.import_module(f"jobs.{verb}")
    show = "--print-config" in arguments
    config = _parse(verb, module, [a for a in arguments if a != "--print-config"])
    if show:
        sys.stdout.write(json.dumps(dataclasses.asdict(config), indent=1, default=_plain) + "\n")
        return 0
    code: int = module.run(config)
    return code


def _parse(verb: str, module: ModuleType, arguments: list[str]) -> Any:
    """The verb's config; its recipes, if it has any, come first on the command line.

    Raises:
        UserError: in one line, whatever tyro tells in a box.
    """
    program = f"noisyactions {verb}"
    recipes = getattr(module, "RECIPES", None)
    default = None
    if recipes is not None and arguments and arguments[0] not in ("-h", "--help"):
        recipe = arguments.pop(0)
        if recipe not in recipes:
            raise UserError(f"{program}: unknown recipe {recipe!r}: one of {', '.join(recipes)}")
        program, default = f"{program} {recipe}", recipes[recipe]()
    elif recipes is not None:
        _show_recipes(program, recipes, usage=getattr(module, "USAGE", "RECIPE ROOT"), helped=bool(arguments))
        return sys.exit(0 if arguments else _USAGE_ERROR)
    _refuse_twice(program, arguments, getattr(module, "REPEATABLE", ()))
    told = io.StringIO()
    try:
        with contextlib.redirect_stderr(told):
            return tyro.cli(
                module.Config if default is None else type(default),
                prog=program,
                args=arguments,
                description=module.__doc__,
                **({} if default is None else {"default": default}),
            )
    except SystemExit as leaving:
        if leaving.code in (0, None):
            raise
        raise UserError(f"{program}: {_one_line(told.getvalue())} (see {program} --help)") from None


def _refuse_twice(program: str, arguments: list[str], repeatable: Sequence[str]) -> None:
    """Of an option that is given twice tyro would take the last and say nothing."""
    given = Counter(word.partition("=")[0].replace("_", "-") for word in arguments if word.startswith("--"))
    for option, times in given.items():
        if times > 1 and option not in repeatable:
            raise UserError(f"{program}: {option} is given {times} times: give it once, with all its values")


def _show_recipes(program: str, recipes: dict[str, Any], *, usage: str, helped: bool) -> None:
    out, first = sys.stdout if helped else sys.stderr, usage.partition(" ")[0]
    out.write(f"usage: {program} {usage} [--field value ...]   ({program} {first} --help shows its fields)\n\n")
    for name, recipe in recipes.items():
        out.write(f"  {name:<22}{(recipe.__doc__ or '').strip().splitlines()[0]}\n")


def _one_line(box: str) -> str:
    """The words inside tyro's box of text."""
    words = re.sub(r"[^\x20-\x7e\n]", "", box)
    return " ".join(word for word in words.split() if not set(word) <= set("-"))


def _plain(value: object) -> object:
    return str(value) if isinstance(value, Path) else repr(value)


if __name__ == "__main__":
    main()
