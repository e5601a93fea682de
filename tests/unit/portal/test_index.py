"""The index of presence against a plain list."""

from hypothesis import given
from hypothesis import strategies as st

from wardgate.portal.index import Index

STEPS = st.lists(st.tuples(st.booleans(), st.integers(0, 5), st.integers(0, 3), st.integers(0, 3)))


@given(STEPS)
def test_an_index_finds_what_a_search_through_everything_finds(steps: list[tuple[bool, int, int, int]]) -> None:
    index: Index[int, tuple[int, int, int]] = Index(lambda value: value[1], lambda value: value[1:])
    plain: dict[int, tuple[int, int, int]] = {}

    for is_added, key, one, two in steps:
        if is_added:
            value = (key, one, two)
            assert index.put(key, value) == plain.pop(key, None)
            plain[key] = value
        else:
            assert index.remove(key) == plain.pop(key, None)

        assert index.items() == list(plain.items())
        assert (len(index), list(index), index.values()) == (len(plain), list(plain), list(plain.values()))
        assert [index.get(key) for key in range(6)] == [plain.get(key) for key in range(6)]
        for group in range(4):
            assert index.of(0, group) == [value for value in plain.values() if value[1] == group]
            assert index.of(1, (group, one)) == [value for value in plain.values() if value[1:] == (group, one)]


def test_groups_without_members_are_forgotten() -> None:
    index: Index[int, str] = Index(lambda value: value)
    for number in range(1000):
        index.put(1, f"group {number}")

    assert index.of(0, "group 999") == ["group 999"]
    assert sum(len(members) for members in index._members) == 1
