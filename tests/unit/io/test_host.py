"""What a component says of its host."""

from wardgate.io.host import host_addresses


def test_the_hosts_addresses_are_those_of_its_interfaces_each_once() -> None:
    found = host_addresses()

    assert "127.0.0.1" in found
    assert len(found) == len(set(found))
