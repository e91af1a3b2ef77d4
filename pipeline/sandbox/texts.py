"""Texts: titles, tags, descriptions and comments as people write them: vague, emphatic, partly wrong."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from pipeline.sandbox.actions import action_named
from pipeline.sandbox.dice import Dice

_TITLES = (
    "{a}", "{a}!!", "Sunday in the park!! {a}", "{A} with the kids", "my first {a}", "{a} 💪🔥", "Dad trying {a} 😂",
    "{a} at the club",
    "Summer camp - {a}", "{a} (part 2)", "Video: {a}", "2 minutes of {a}", "{a} <3", "{A} & friends",
    "{a} in slow motion",
)  # fmt: skip
_VAGUE_TITLES = (
    "GOPR{n:04d}", "MVI_{n:04d}", "IMG_{n:04d}.MOV", "{n}", "DSC{n:05d}", "untitled", "", "Day {d}",
    "يوم جميل في الحديقة", "יום כיף בים",
    "Ñandú & co.", "公園で遊ぶ", "Sommerfest 20{d:02d}", "☀️☀️☀️", "03-{d:02d} clip",
)  # fmt: skip
_DESCRIPTIONS = (
    "", "", "", "We spent the whole afternoon on {a}.", "Shot on my old phone, sorry for the shake. {A}, as promised!",
    'More of this on <a href="https://example.org/blog" rel="noreferrer nofollow">my blog</a> &amp; soon here: {a}',
    "<b>{A}</b>\nlocation: the park behind our house\ncamera: no idea", "Practice makes perfect &quot;{a}&quot; ...",
    "{a} {a} {a}",
    "Some people say this is not {a} at all :-)",
)  # fmt: skip
_VAGUE_DESCRIPTIONS = (
    "",
    "",
    "",
    "Test upload.",
    "See title.",
    "شكرا للمشاهدة",
    "Uploaded with a <i>mobile</i> app.",
    "100% fun",
)
_TAGS = (
    "video", "fun", "summer", "Family", "park", "friends", "holiday", "Sport", "fitness", "New York", "2012", "beach",
    "iphone video",
    "Nikon D90", "kids", "slow-motion", "geotagged", "🎉", "été", "workout", "weekend", "vacation 2010", "outdoor",
    "home movie",
)  # fmt: skip
_MACHINE_TAGS = ("geo:lat=52.37", "uploaded:by=flickrmobile", "foursquare:venue=4b5b")
_COMMENTS = (
    "Great!", "lovely capture", "😂😂😂", "Is this {a}?", "nice {a}", "how did you film that", "Added to the group [url=https://example.org]here[/url]",
    'You look <i>great</i> <a href="https://www.flickr.com/photos/someone/">see mine</a>', "رائع", "wow", "first",
    "That is not {a}...",
)  # fmt: skip


_ODD_TITLES = (
    "nul \x00 and bell \x07", "vertical\x0btab", "half an emoji \ud83d", "\u202ethgir ot tfel\u202c", "zero\u200bwidth",
    "\ufeffbom", "line\u2028separator", "a " * 400, "'; DROP TABLE videos; --", "=1+1", "NA", "null", "\ufffd\ufffd",
    "7e5", "1,5|2\tx", "007", "true",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Texts:
    """What is written on one video."""

    title: str
    description: str
    """HTML."""
    tags: tuple[str, ...]
    """As typed; what search shows of them is `normalised_tag`."""


@lru_cache(maxsize=65_536)
def normalised_tag(raw: str) -> str:
    """A tag as Flickr stores it: lower case, letters and digits only; emoji stay."""
    if ":" in raw and "=" in raw:
        return raw.lower()
    return "".join(c for c in unicodedata.normalize("NFC", raw).lower() if c.isalnum() or ord(c) > 0x2100)


def write_texts(labels: Sequence[str], dice: Dice) -> Texts:
    """Texts that mention each label at least once, in title, tags or description."""
    numbers = {"n": dice.integer(1, 9999), "d": dice.integer(1, 24)}
    spelled = [dice.pick(action_named(label).spellings) for label in labels]
    in_title = bool(spelled) and dice.chance(0.6)
    title = _filled(dice.pick(_TITLES), spelled[0]) if in_title else dice.pick(_VAGUE_TITLES).format(**numbers)
    about = dice.pick(spelled) if spelled and dice.chance(0.6) else None
    description = _filled(dice.pick(_DESCRIPTIONS), about) if about else dice.pick(_VAGUE_DESCRIPTIONS)
    tags = dice.sample(_TAGS, dice.poisson(2.5)) + ([dice.pick(_MACHINE_TAGS)] if dice.chance(0.1) else [])
    for number, spelling in enumerate(spelled):
        told = (in_title and number == 0) or (spelling == about and spelling.lower() in description.lower())
        if not told or dice.chance(0.5):
            tags.insert(dice.integer(0, len(tags)), spelling)
    return Texts(title=title, description=description, tags=tuple(dict.fromkeys(tags)))


def odd_title(texts: Texts, dice: Dice) -> Texts:
    """The same with a title that breaks what is careless with text."""
    return replace(texts, title=dice.pick(_ODD_TITLES))


def write_comment(labels: Sequence[str], dice: Dice) -> str:
    """One comment, perhaps on an action that the texts mention."""
    return _filled(dice.pick(_COMMENTS), dice.pick(labels) if labels else "it")


def _filled(template: str, name: str) -> str:
    return template.replace("{a}", name.lower()).replace("{A}", name[:1].upper() + name[1:])


_WORD = re.compile(r"[^\W_]+")


def words_of(text: str) -> list[str]:
    """The words of a text, lower-case, without markup."""
    return _WORD.findall(re.sub(r"<[^>]*>", " ", text).lower())


@lru_cache(maxsize=65_536)
def stem(word: str) -> str:
    """A word without its commonest English endings: `juggling`, `juggle` and `juggles` all give `juggl`."""
    for ending, least in (("ing", 3), ("ed", 3), ("es", 3), ("s", 2), ("e", 3)):
        if word.endswith(ending) and len(word) - len(ending) >= least:
            word = word[: -len(ending)]
            break
    return word[:-1] if len(word) > 3 and word[-1] == word[-2] else word
