from wardgate.tunnel.authorizations import Authorizations

EPOCH = 1_000_000.0


def test_each_authorization_ends_at_its_own_time() -> None:
    authorizations = Authorizations[str](EPOCH)
    authorizations.grant("a", EPOCH + 10)
    authorizations.grant("b", EPOCH + 20)
    authorizations.grant("c", None)

    assert authorizations.poll_timeout() == 10
    assert [key for key, _ in authorizations.expire(10)] == ["a"]
    assert [key for key, _ in authorizations.expire(20)] == ["b"]
    assert authorizations.poll_timeout() is None
    assert list(authorizations) == ["c"]


def test_granting_again_with_a_past_expiry_ends_it_on_the_next_tick() -> None:
    authorizations = Authorizations[str](EPOCH)
    first = authorizations.grant("a", None)
    second = authorizations.grant("a", EPOCH - 5)

    assert first is not None
    assert second is not None
    assert first.number == second.number
    assert [key for key, _ in authorizations.expire(0)] == ["a"]


def test_retain_ends_what_is_not_listed_and_creates_nothing() -> None:
    authorizations = Authorizations[str](EPOCH)
    authorizations.grant("a", None)
    authorizations.grant("b", None)

    ended = authorizations.retain({"a": EPOCH + 5, "z": EPOCH + 5})

    assert [key for key, _ in ended] == ["b"]
    assert list(authorizations) == ["a"]
    assert authorizations.poll_timeout() == 5


def test_a_number_is_never_used_twice() -> None:
    authorizations = Authorizations[str](EPOCH)
    first = authorizations.grant("a", None)
    authorizations.revoke("a")
    second = authorizations.grant("a", None)

    assert first is not None
    assert second is not None
    assert 0 < first.number < second.number
