import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wardgate.wire.domain_patterns import DomainPattern


def pattern(text: str) -> DomainPattern:
    parsed = DomainPattern.parse(text)
    assert parsed is not None
    return parsed


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("**.example.com", "example.com"),
        ("**.example.com", "foo.bar.example.com"),
        ("app.**.example.com", "app.bar.foo.example.com"),
        ("*.example.com", "example.com"),
        ("*.example.com", "foo.example.com"),
        ("foo.*.example.com", "foo.bar.example.com"),
        ("app.f??.example.com", "app.foo.example.com"),
        ("*?*.example.com", "app.example.com"),
        ("app.**.web.**.example.com", "app.web.example.com"),
        ("App.Example.com", "aPP.example.COM."),
    ],
)
def test_covered_names(text: str, name: str) -> None:
    assert pattern(text).matches(name)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("app.*.example.com", "app.foo.bar.example.com"),
        ("app.*com", "app.foo.com"),
        ("app?com", "app.com"),
        ("*.example.com", "foo.bar.example.com"),
        ("*?*.example.com", "example.com"),
        ("example.com", "notexample.com"),
        ("example.com", "example..com"),
    ],
)
def test_names_that_are_not_covered(text: str, name: str) -> None:
    assert not pattern(text).matches(name)


@pytest.mark.parametrize("text", ["", ".", "a**.example.com", "***.example.com", "a..b", ".example.com"])
def test_texts_that_are_no_patterns(text: str) -> None:
    assert DomainPattern.parse(text) is None


def test_specificity_orders_best_first() -> None:
    best_first = [
        "example.com",
        "bar.example.com",
        "*.bar.example.com",
        "foo.example.com",
        "?.example.com",
        "*.example.com",
        "**.example.com",
        "*ample.com",
        "*.com",
    ]
    shuffled = random.Random(1).sample(best_first, len(best_first))

    assert sorted(shuffled, key=lambda text: pattern(text).rank, reverse=True) == best_first


def test_many_wildcards_are_quick() -> None:
    assert not pattern("*a" * 30 + "b.example.com").matches("a" * 63 + ".example.com")
    assert not pattern(".".join(["**", "a"] * 100)).matches(".".join(["a"] * 99 + ["b"]))


@given(st.text(max_size=40), st.text(max_size=40))
def test_any_text_is_a_pattern_or_none_and_any_name_matches_or_not(text: str, name: str) -> None:
    parsed = DomainPattern.parse(text)

    if parsed is not None:
        assert parsed.matches(name) in (True, False)


@given(st.lists(st.sampled_from(["a", "b", "app"]), min_size=1, max_size=4))
def test_a_name_covers_itself(labels: list[str]) -> None:
    name = ".".join(labels)

    assert pattern(name).matches(name)
