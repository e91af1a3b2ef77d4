"""People: owners and commenters, the same few again and again."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from pipeline.sandbox.dice import Dice

_FIRST = (
    "Ana",
    "Bram",
    "Chloé",
    "Dmitri",
    "Elif",
    "Femi",
    "Grace",
    "Hiro",
    "Ingrid",
    "João",
    "Kavita",
    "Liam",
    "Mina",
    "Nour",
    "Olga",
)
_LAST = (
    "Rivera",
    "Pitoyo",
    "Dubois",
    "Okafor",
    "Yilmaz",
    "Nakamura",
    "Larsen",
    "Silva",
    "Rao",
    "Murphy",
    "Haddad",
    "Novak",
)
_HANDLES = ("clicks", "photo", "video", "films", "outdoors", "dad", "runner", "travels", "fit", "cam")


@dataclass(frozen=True, kw_only=True, slots=True)
class Person:
    """A member of the site."""

    nsid: str
    username: str
    realname: str
    location: str
    path_alias: str | None
    """The name in the person's URLs; None for those who never chose one."""

    @property
    def path(self) -> str:
        """What stands for the person in a URL."""
        return self.path_alias or self.nsid


@lru_cache(maxsize=4096)
def person(seed: int, number: int) -> Person:
    """The person of that number."""
    dice = Dice("person", seed, number)
    first, last = dice.pick(_FIRST), dice.pick(_LAST)
    handle = f"{first}{dice.pick(_HANDLES)}{number}"
    return Person(
        nsid=f"{10_000_000 + number * 4099 + dice.integer(0, 4000)}@N0{dice.integer(0, 8)}",
        username=dice.pick((handle, f"{first} {last}", f"{last}.{first}".lower())),
        realname=f"{first} {last}" if dice.chance(0.6) else "",
        location=dice.pick(("", "", "Wellington, New Zealand", "Lisboa", "NYC")),
        path_alias=handle.lower().encode("ascii", "ignore").decode() if dice.chance(0.65) else None,
    )
