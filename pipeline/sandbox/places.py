"""Places: where videos say they were taken, with the awkward cases that people's cameras and fingers make."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.sandbox.dice import Dice


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """A geotag as Flickr gives it."""

    latitude: float
    longitude: float
    accuracy: int
    """1 (world) to 16 (street); 0 is unusable."""
    locality: str | None = None
    country: str | None = None
    """As Flickr writes it; None where it knows of none, as on the open sea."""


_TOWNS: tuple[tuple[float, float, str, str], ...] = (
    (40.7128, -74.006, "New York", "United States"), (34.0522, -118.2437, "Los Angeles", "United States"),
    (51.5074, -0.1278, "London", "United Kingdom"), (48.8566, 2.3522, "Paris", "France"),
    (52.52, 13.405, "Berlin", "Germany"),
    (41.9028, 12.4964, "Rome", "Italy"), (40.4168, -3.7038, "Madrid", "Spain"),
    (-23.5505, -46.6333, "São Paulo", "Brazil"),
    (28.6567, 77.2308, "New Delhi", "India"), (35.6762, 139.6503, "Tokyo", "Japan"),
    (-33.8688, 151.2093, "Sydney", "Australia"),
    (43.6532, -79.3832, "Toronto", "Canada"), (19.4326, -99.1332, "Mexico City", "Mexico"),
    (-41.2866, 174.7756, "Wellington", "New Zealand"),
    (52.3676, 4.9041, "Amsterdam", "Netherlands"), (37.5665, 126.978, "Seoul", "South Korea"),
    (30.0444, 31.2357, "Cairo", "Egypt"),
    (-1.2921, 36.8219, "Nairobi", "Kenya"), (5.36, -4.0083, "Abidjan", "Côte d'Ivoire"),
    (-22.5609, 17.0658, "Windhoek", "Namibia"),
    (31.7767, 35.2345, "Jerusalem", "Israel"), (42.6629, 21.1655, "Pristina", "Kosovo"),
    (41.0082, 28.9784, "Istanbul", "Turkey"),
)  # fmt: skip

_AWKWARD: tuple[Place, ...] = (
    Place(latitude=-22.5609, longitude=17.0658, accuracy=14, locality="Windhoek", country="Namibia"),
    Place(
        latitude=47.5596, longitude=7.5886, accuracy=16, locality="Basel", country="Switzerland"
    ),  # on a border of three
    Place(latitude=25.0, longitude=-40.0, accuracy=6),  # the open Atlantic
    Place(latitude=0.0, longitude=0.0, accuracy=16),  # a camera without a fix
    Place(latitude=52.37, longitude=4.89, accuracy=0, locality="Amsterdam", country="Netherlands"),
)


def drawn_place(dice: Dice, *, rate: float) -> Place | None:
    """A geotag for that share of the videos, one in eight of these an awkward one."""
    if not dice.chance(rate):
        return None
    if dice.chance(0.125):
        return dice.pick(_AWKWARD)
    # Towns are long-tailed: the first is the most frequent.
    weights = [1 / (rank + 2) for rank in range(len(_TOWNS))]
    latitude, longitude, locality, country = dice.weighted(_TOWNS, weights)
    return Place(
        latitude=round(latitude + dice.between(-0.05, 0.05), 6),
        longitude=round(longitude + dice.between(-0.05, 0.05), 6),
        accuracy=dice.integer(9, 16), locality=locality, country=country,
    )  # fmt: skip
