"""What the lab and its supervisor say to each other."""

import os

from wardgate.lab import messages
from wardgate.lab.lab import Lab


def test_message_arrives_with_its_descriptors() -> None:
    ours, theirs = messages.pair()
    read_end, write_end = os.pipe()

    with ours, theirs:
        messages.send(ours, {"text": "ä" * 1000}, [write_end])
        received = messages.receive(theirs)
        assert received is not None
        message, (descriptor,) = received

    assert message == {"text": "ä" * 1000}
    os.write(descriptor, b"through")
    assert os.read(read_end, 100) == b"through"
    assert not os.get_inheritable(descriptor)
    for number in (read_end, write_end, descriptor):
        os.close(number)


def test_closed_connection_is_the_end() -> None:
    ours, theirs = messages.pair()
    ours.close()
    with theirs:
        assert messages.receive(theirs) is None


def test_reply_to_an_earlier_request_is_not_taken_for_ours() -> None:
    ours, theirs = messages.pair()
    read_end, write_end = os.pipe()
    with ours, theirs:
        messages.send(theirs, {"number": 1}, [write_end])
        messages.send(theirs, {"number": 2, "mine": True})
        os.close(write_end)

        assert Lab._receive_reply(ours, 2) == ({"number": 2, "mine": True}, [])

    assert os.read(read_end, 1) == b""  # the earlier reply's descriptor is closed
    os.close(read_end)
