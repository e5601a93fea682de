"""Where countries are, roughly."""

import pytest

from wardgate.ids import RelayId
from wardgate.portal.domain.places import CENTROIDS, with_centroid
from wardgate.portal.domain.selection import OnlineRelay, choose_relays
from wardgate.portal.domain.subjects import Location


def test_every_country_has_one_place_on_earth() -> None:
    assert len(CENTROIDS) == 245
    assert all(len(code) == 2 and code.isupper() for code in CENTROIDS)
    assert all(abs(lat) <= 90 and abs(lon) <= 180 for lat, lon in CENTROIDS.values())


@pytest.mark.parametrize(
    ("known", "lat"),
    [
        (Location("AT"), 47.0),
        (Location("at"), 47.0),
        (Location("AT", "Wien", 48.2, 16.4), 48.2),
        (Location("ZZ"), None),
        (Location(), None),
    ],
)
def test_a_country_gives_a_place_only_where_none_is_known(known: Location, lat: float | None) -> None:
    assert with_centroid(known).lat == lat


def test_the_country_alone_finds_the_nearer_relays() -> None:
    relays = [OnlineRelay(RelayId(code), with_centroid(Location(code))) for code in ("AU", "DE", "US", "CH")]

    chosen = choose_relays(relays, location=with_centroid(Location("AT")), shuffle=list)

    assert {one.id for one in chosen} == {"DE", "CH"}
