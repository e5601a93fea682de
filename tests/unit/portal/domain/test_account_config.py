"""What the search domain and the clients' resolvers may be: a row for each sentence."""

from typing import Any

import pytest

from wardgate.errors import InvalidInput
from wardgate.portal.domain.account_config import check_config

CURRENT: dict[str, Any] = {
    "search_domain": None,
    "clients_upstream_dns": {"type": "custom", "doh_provider": "quad9", "addresses": ["192.0.2.53"]},
}
NINE = [f"192.0.2.{number}" for number in range(9)]


@pytest.mark.parametrize(
    ("domain", "is_right"),
    [
        ("corp.example", True),
        ("a-b.corp.example", True),
        (None, True),
        (f"{'a' * 63}.example", True),
        (".corp.example", False),
        ("corp..example", False),
        ("corp.e", False),
        ("corp.e1", False),
        (f"{'a' * 64}.example", False),
        ("co_rp.example", False),
        ("bücher.example", False),
        (f"{'a.' * 130}example", False),
    ],
)
def test_a_search_domain_is_a_domain_name(domain: str | None, is_right: bool) -> None:
    if is_right:
        assert check_config(CURRENT, {"search_domain": domain})["search_domain"] == domain
    else:
        with pytest.raises(InvalidInput, match="search_domain"):
            check_config(CURRENT, {"search_domain": domain})


@pytest.mark.parametrize(
    ("given", "wrong"),
    [
        ({"type": "system"}, None),
        ({"type": "secure", "doh_provider": "opendns"}, None),
        ({"type": "custom", "addresses": ["1.1.1.1", "2606:4700:4700::1111"]}, None),
        ({"type": "custom", "addresses": [{"address": "1.1.1.1"}]}, None),
        ({"type": "custom", "addresses": NINE[:8]}, None),
        ({"type": "custom", "addresses": NINE}, "addresses"),
        ({"type": "custom", "addresses": []}, "addresses"),
        ({"type": "custom", "addresses": ["1.1.1.1", "1.1.1.1"]}, "addresses"),
        ({"type": "custom", "addresses": ["1.1.1.1:53"]}, "addresses"),
        ({"type": "custom", "addresses": ["100.64.0.1"]}, "addresses"),
        ({"type": "custom", "addresses": ["fd00:2021:1111::1"]}, "addresses"),
        ({"type": "custom", "addresses": "1.1.1.1"}, "addresses"),
        ({"type": "other"}, "type"),
        ({"type": "secure", "doh_provider": "acme"}, "doh_provider"),
    ],
)
def test_resolvers_are_a_few_plain_addresses_outside_of_the_tunnel(given: dict[str, Any], wrong: str | None) -> None:
    if wrong is None:
        assert check_config(CURRENT, {"clients_upstream_dns": given})["clients_upstream_dns"]["type"] == given["type"]
        return
    with pytest.raises(InvalidInput) as refused:
        check_config(CURRENT, {"clients_upstream_dns": given})
    assert list(refused.value.fields) == [f"clients_upstream_dns.{wrong}"]
    assert all(one.accepted for one in refused.value.problems)


def test_resolvers_are_kept_while_another_type_is_chosen() -> None:
    switched = check_config(CURRENT, {"clients_upstream_dns": {"type": "system"}})

    assert switched["clients_upstream_dns"] == {**CURRENT["clients_upstream_dns"], "type": "system"}
    back = check_config(switched, {"clients_upstream_dns": {"type": "custom"}})
    assert back["clients_upstream_dns"]["addresses"] == ["192.0.2.53"]


def test_what_is_no_object_is_refused() -> None:
    with pytest.raises(InvalidInput, match="clients_upstream_dns"):
        check_config(CURRENT, {"clients_upstream_dns": "system"})
