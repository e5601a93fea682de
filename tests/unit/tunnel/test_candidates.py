from wardgate.tunnel.candidates import MAX_HELD, CandidateBatch, CandidateHold


def test_an_addition_and_its_removal_cancel_out() -> None:
    hold = CandidateHold()
    hold.add("a", ("one", "two"))
    hold.remove("a", ("one",))

    assert hold.take() == [CandidateBatch("a", ("two",), ())]


def test_a_removal_of_what_was_sent_is_sent() -> None:
    hold = CandidateHold()
    hold.add("a", ("one",))
    hold.take()
    hold.remove("a", ("one",))

    assert hold.take() == [CandidateBatch("a", (), ("one",))]


def test_one_batch_for_each_peer_in_order() -> None:
    hold = CandidateHold()
    hold.add("b", ("one",))
    hold.add("a", ("two",))
    hold.add("b", ("three",))
    hold.forget("c")

    assert hold.take() == [CandidateBatch("a", ("two",), ()), CandidateBatch("b", ("one", "three"), ())]
    assert hold.take() == []


def test_what_is_held_is_bounded() -> None:
    hold = CandidateHold()
    hold.add("a", tuple(str(number) for number in range(MAX_HELD + 5)))

    assert len(hold.take()[0].added) == MAX_HELD
    assert hold.refused == 5
