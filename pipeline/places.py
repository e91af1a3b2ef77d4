"""A country's name as Flickr writes it -> its ISO 3166-1 alpha-2 code.

Coordinates alone are counted and not resolved: that needs borders offline, which this module does not ship.
Codes are text and stay text: Namibia's is `NA`, and reading it as "not a number" is a known trap.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable
from typing import Literal

from pipeline.records import VideoRecord

Basis = Literal["name", "unknown_name", "coordinates_only", "no_place"]
"""What is known of where a video was made: a country's name that was resolved, one that was not, a point, nothing."""

_NAMES = """
AD Andorra; AE United Arab Emirates; AF Afghanistan; AG Antigua and Barbuda; AI Anguilla; AL Albania; AM Armenia;
AO Angola; AQ Antarctica; AR Argentina; AS American Samoa; AT Austria; AU Australia; AW Aruba; AX Åland Islands;
AZ Azerbaijan; BA Bosnia and Herzegovina; BB Barbados; BD Bangladesh; BE Belgium; BF Burkina Faso; BG Bulgaria;
BH Bahrain; BI Burundi; BJ Benin; BL Saint Barthélemy; BM Bermuda; BN Brunei; BO Bolivia;
BQ Bonaire, Sint Eustatius and Saba; BR Brazil; BS Bahamas; BT Bhutan; BV Bouvet Island; BW Botswana; BY Belarus;
BZ Belize; CA Canada; CC Cocos Islands; CD Democratic Republic of the Congo; CF Central African Republic; CG Congo;
CH Switzerland; CI Côte d'Ivoire; CK Cook Islands; CL Chile; CM Cameroon; CN China; CO Colombia; CR Costa Rica; CU Cuba;
CV Cape Verde; CW Curaçao; CX Christmas Island; CY Cyprus; CZ Czechia; DE Germany; DJ Djibouti; DK Denmark; DM Dominica;
DO Dominican Republic; DZ Algeria; EC Ecuador; EE Estonia; EG Egypt; EH Western Sahara; ER Eritrea; ES Spain;
ET Ethiopia; FI Finland; FJ Fiji; FK Falkland Islands; FM Micronesia; FO Faroe Islands; FR France; GA Gabon;
GB United Kingdom; GD Grenada; GE Georgia; GF French Guiana; GG Guernsey; GH Ghana; GI Gibraltar; GL Greenland;
GM Gambia; GN Guinea; GP Guadeloupe; GQ Equatorial Guinea; GR Greece;
GS South Georgia and the South Sandwich Islands; GT Guatemala; GU Guam; GW Guinea-Bissau; GY Guyana; HK Hong Kong;
HM Heard Island and McDonald Islands; HN Honduras; HR Croatia; HT Haiti; HU Hungary; ID Indonesia; IE Ireland;
IL Israel; IM Isle of Man; IN India; IO British Indian Ocean Territory; IQ Iraq; IR Iran; IS Iceland; IT Italy;
JE Jersey; JM Jamaica; JO Jordan; JP Japan; KE Kenya; KG Kyrgyzstan; KH Cambodia; KI Kiribati; KM Comoros;
KN Saint Kitts and Nevis; KP North Korea; KR South Korea; KW Kuwait; KY Cayman Islands; KZ Kazakhstan; LA Laos;
LB Lebanon; LC Saint Lucia; LI Liechtenstein; LK Sri Lanka; LR Liberia; LS Lesotho; LT Lithuania; LU Luxembourg;
LV Latvia; LY Libya; MA Morocco; MC Monaco; MD Moldova; ME Montenegro; MF Saint Martin; MG Madagascar;
MH Marshall Islands; MK North Macedonia; ML Mali; MM Myanmar; MN Mongolia; MO Macao; MP Northern Mariana Islands;
MQ Martinique; MR Mauritania; MS Montserrat; MT Malta; MU Mauritius; MV Maldives; MW Malawi; MX Mexico; MY Malaysia;
MZ Mozambique; NA Namibia; NC New Caledonia; NE Niger; NF Norfolk Island; NG Nigeria; NI Nicaragua; NL Netherlands;
NO Norway; NP Nepal; NR Nauru; NU Niue; NZ New Zealand; OM Oman; PA Panama; PE Peru; PF French Polynesia;
PG Papua New Guinea; PH Philippines; PK Pakistan; PL Poland; PM Saint Pierre and Miquelon; PN Pitcairn; PR Puerto Rico;
PS Palestine; PT Portugal; PW Palau; PY Paraguay; QA Qatar; RE Réunion; RO Romania; RS Serbia; RU Russia; RW Rwanda;
SA Saudi Arabia; SB Solomon Islands; SC Seychelles; SD Sudan; SE Sweden; SG Singapore;
SH Saint Helena, Ascension and Tristan da Cunha; SI Slovenia; SJ Svalbard and Jan Mayen; SK Slovakia; SL Sierra Leone;
SM San Marino; SN Senegal; SO Somalia; SR Suriname; SS South Sudan; ST São Tomé and Príncipe; SV El Salvador;
SX Sint Maarten; SY Syria; SZ Eswatini; TC Turks and Caicos Islands; TD Chad; TF French Southern Territories; TG Togo;
TH Thailand; TJ Tajikistan; TK Tokelau; TL Timor-Leste; TM Turkmenistan; TN Tunisia; TO Tonga; TR Türkiye;
TT Trinidad and Tobago; TV Tuvalu; TW Taiwan; TZ Tanzania; UA Ukraine; UG Uganda;
UM United States Minor Outlying Islands; US United States; UY Uruguay; UZ Uzbekistan; VA Vatican City;
VC Saint Vincent and the Grenadines; VE Venezuela; VG British Virgin Islands; VI United States Virgin Islands;
VN Vietnam; VU Vanuatu; WF Wallis and Futuna; WS Samoa; XK Kosovo; YE Yemen; YT Mayotte; ZA South Africa; ZM Zambia;
ZW Zimbabwe
"""
"""ISO 3166-1, short names; XK for Kosovo is a user-assigned code in wide use."""

_ALIASES = """
AE UAE; BN Brunei Darussalam; BO Plurinational State of Bolivia; BQ Caribbean Netherlands; CC Cocos (Keeling) Islands;
CD Congo-Kinshasa; CD DR Congo; CD Congo, The Democratic Republic of the; CD Zaire; CG Republic of the Congo;
CG Congo-Brazzaville; CI Ivory Coast; CN People's Republic of China; CV Cabo Verde; CZ Czech Republic;
FK Falkland Islands (Malvinas); FM Federated States of Micronesia; GB UK; GB Great Britain; GB England; GB Scotland;
GB Wales; GB Northern Ireland; HK Hong Kong SAR; IE Republic of Ireland; IR Islamic Republic of Iran;
KG Kyrgyz Republic; KN St. Kitts and Nevis;
KP Democratic People's Republic of Korea; KR Republic of Korea; KR Korea; LA Lao PDR;
LA Lao People's Democratic Republic; LC St. Lucia; LY Libyan Arab Jamahiriya; MD Republic of Moldova; MF St. Martin;
MK Macedonia; MK Former Yugoslav Republic of Macedonia; MM Burma; MO Macau; NL Holland; PM St. Pierre and Miquelon;
PN Pitcairn Islands; PS Palestinian Territories; PS Palestinian Territory; PS State of Palestine; PS West Bank;
PS Gaza Strip; RU Russian Federation; SH Saint Helena; SH St. Helena; SX St. Maarten; SY Syrian Arab Republic;
SZ Swaziland; ST Sao Tome; TL East Timor; TR Turkey; TW Taiwan, Province of China; TZ United Republic of Tanzania;
US USA; US United States of America; VA Holy See; VA Vatican; VC St. Vincent and the Grenadines; VE Bolivarian Republic
of Venezuela; VG Virgin Islands, British; VI US Virgin Islands; VI Virgin Islands, U.S.; VN Viet Nam
"""
"""Other names in use, older ones among them."""


def _key(name: str) -> str:
    """A name without case, accents, punctuation and articles."""
    plain = unicodedata.normalize("NFKD", name.replace("&", " and ")).encode("ascii", "ignore").decode().casefold()
    words = "".join(c if c.isalnum() else "" if c in "'." else " " for c in plain).split()
    return " ".join(word for word in words if word != "the")


def _table(text: str) -> dict[str, str]:
    """ISO code by name."""
    entries = (entry.strip().partition(" ") for entry in text.replace("\n", " ").split(";"))
    return {name: iso for iso, _, name in entries}


_NAME_OF = {iso: name for name, iso in _table(_NAMES).items()}
_ISO_OF = {_key(name): iso for text in (_ALIASES, _NAMES) for name, iso in _table(text).items()}


def country_iso(name: str | None) -> str | None:
    """The code of a country's name; None for no name or an unknown one."""
    return _ISO_OF.get(_key(name)) if name else None


def country_name(iso: str) -> str:
    """The short English name of a code; the code itself where there is none."""
    return _NAME_OF.get(iso, iso)


def _basis(record: VideoRecord) -> Basis:
    if record.country:
        return "name" if country_iso(record.country) else "unknown_name"
    if record.latitude is None or record.longitude is None or (record.latitude, record.longitude) == (0, 0):
        return "no_place"  # Flickr writes (0, 0) for "unknown"
    return "coordinates_only"


def locate(records: Iterable[VideoRecord]) -> tuple[dict[str, str], Counter[Basis]]:
    """Video id -> code for every video that names a known country, and how many videos there are of each basis."""
    found: dict[str, str] = {}
    bases: Counter[Basis] = Counter()
    for record in records:
        bases[_basis(record)] += 1
        iso = country_iso(record.country)
        if iso:
            found[record.video_id] = iso
    return found, bases
