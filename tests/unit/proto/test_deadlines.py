"""Deadlines against a plain dictionary."""

from hypothesis import given
from hypothesis import strategies as st

from wardgate.proto.deadlines import Deadlines


@given(st.lists(st.tuples(st.sampled_from(["set", "discard", "pop"]), st.integers(0, 5), st.integers(0, 20))))
def test_they_behave_like_a_dictionary(steps: list[tuple[str, int, int]]) -> None:
    deadlines: Deadlines[int] = Deadlines()
    model: dict[int, float] = {}
    for action, key, at in steps:
        match action:
            case "set":
                deadlines.set(key, at)
                model[key] = at
            case "discard":
                deadlines.discard(key)
                model.pop(key, None)
            case "pop":
                popped = deadlines.pop_due(at)
                if popped is None:
                    assert not [due for due in model.values() if due <= at]
                else:
                    assert model.pop(popped) <= at
        assert deadlines.next_at() == min(model.values(), default=None)
        assert len(deadlines) == len(model)


def test_a_deadline_moved_without_end_needs_no_memory() -> None:
    deadlines: Deadlines[str] = Deadlines()
    for at in range(100_000):
        deadlines.set("a", float(at))

    assert len(deadlines._heap) < 200
    assert deadlines.pop_due(100_000.0) == "a"
    assert deadlines.pop_due(100_000.0) is None


def test_equal_deadlines_come_in_the_order_they_were_set() -> None:
    deadlines: Deadlines[str] = Deadlines()
    for key in "cab":
        deadlines.set(key, 1.0)

    assert [deadlines.pop_due(1.0) for _ in range(3)] == ["c", "a", "b"]
