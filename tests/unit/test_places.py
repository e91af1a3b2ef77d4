import pytest

from pipeline.places import country_iso, country_name, locate
from pipeline.records import VideoRecord


@pytest.mark.parametrize(
    ("name", "iso"),
    [
        ("United Kingdom", "GB"), ("united states", "US"), ("USA", "US"), ("U.S.A.", "US"), ("Ivory Coast", "CI"),
        ("C\N{LATIN SMALL LETTER O WITH CIRCUMFLEX}te d'Ivoire", "CI"), ("Turkey", "TR"), ("Burma", "MM"),
        ("Kosovo", "XK"), ("Palestinian Territories", "PS"), ("Namibia", "NA"), ("Swaziland", "SZ"),
        ("The Netherlands", "NL"), ("Korea, Republic of", None), ("South Korea", "KR"), ("Viet Nam", "VN"),
        ("Bosnia & Herzegovina", "BA"), ("Congo", "CG"), ("Democratic Republic of the Congo", "CD"),
        ("Bolivarian Republic of Venezuela", "VE"), ("Atlantis", None), ("", None), (None, None),
    ],
)  # fmt: skip
def test_country_names(name, iso):
    assert country_iso(name) == iso


def test_every_code_has_a_name_that_leads_back_to_it():
    codes = [a + b for a in map(chr, range(65, 91)) for b in map(chr, range(65, 91))]
    named = [code for code in codes if country_name(code) != code]
    assert len(named) == 250  # ISO 3166-1 has 249, and Kosovo
    assert all(country_iso(country_name(code)) == code for code in named)


def test_what_is_known_of_each_place_is_counted():
    records = [
        VideoRecord(video_id="a", country="Japan", latitude=35.0, longitude=139.0),
        VideoRecord(video_id="b", country="Atlantis"),
        VideoRecord(video_id="c", latitude=35.0, longitude=139.0),
        VideoRecord(video_id="d", latitude=0.0, longitude=0.0),
        VideoRecord(video_id="e"),
        VideoRecord(video_id="f", country="Namibia"),
    ]
    found, bases = locate(records)
    assert found == {"a": "JP", "f": "NA"}
    assert bases == {"name": 2, "unknown_name": 1, "coordinates_only": 1, "no_place": 2}
