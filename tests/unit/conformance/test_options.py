"""The command line: what is refused, and with which words."""

import pytest
from conformance.options import parse, parse_server
from conformance.registry import all_requirements
from conformance.wire import Address


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--username", "u"], "name it with --server"),
        (["--server", "127.0.0.1:1", "--username", "u"], "--username and --password go together"),
        (["--server", "127.0.0.1:1", "--other-password", "p"], "--other-username and --other-password go together"),
        (["--server", "127.0.0.1:1", "--username", "u", "--password", "p", "--secret", "s"], "exclude each other"),
        (["--server", "127.0.0.1:x"], "'x' is no port"),
        (["--server", "127.0.0.1:70000"], "'70000' is no port"),
        (["--server", "no such host:3478"], "no address is known"),
        (["--server", "127.0.0.1:1", "--peer-address", "here"], "is no IP address"),
        (["--server", "127.0.0.1:1", "--server6", "127.0.0.1:1"], "is no IPv6 address"),
        (["--server", "127.0.0.1:1", "--transport", "quic"], "invalid choice"),
        (["--json", "/no/such/place/file"], "/no/such/place is no directory"),
        (["--nonsense"], "unrecognized arguments"),
    ],
)
def test_nonsense_is_refused_with_status_2(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(arguments)

    assert ended.value.code == 2
    assert said in capsys.readouterr().err


def test_help_names_every_option_and_the_exit_status(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(["--help"])

    said = capsys.readouterr().out
    assert ended.value.code == 0
    for option in ("--server", "--secret", "--realm", "--peer-address", "--transport", "--only", "--slow", "--list"):
        assert option in said
    assert "exit status" in said


@pytest.mark.parametrize(
    ("text", "transport", "address"),
    [
        ("127.0.0.1:5000", "udp", Address("127.0.0.1", 5000)),
        ("127.0.0.1", "udp", Address("127.0.0.1", 3478)),
        ("127.0.0.1", "tls", Address("127.0.0.1", 5349)),
        ("[::1]:5000", "udp", Address("::1", 5000)),
        ("[::1]", "udp", Address("::1", 3478)),
        ("::1", "udp", Address("::1", 3478)),
    ],
)
def test_servers_are_addresses_with_or_without_a_port(text: str, transport: str, address: Address) -> None:
    assert parse_server(text, transport) == address


def test_secret_gives_every_client_a_name_of_its_own() -> None:
    target = parse(["--server", "127.0.0.1:1", "--secret", "north"]).target

    assert target is not None
    first, second = target.users.take(), target.users.take()
    assert first is not None
    assert second is not None
    assert first.name != second.name
    assert first.name.partition(":")[0].isdecimal()


def test_only_chooses_by_id_and_by_level() -> None:
    requirements = all_requirements()

    by_id = parse(["--list", "--only", "8656-12.*"]).choose(requirements)
    by_level = parse(["--list", "--only", "MAY"]).choose(requirements)

    assert {each.section.split(".")[0] for each in by_id} == {"12"}
    assert {each.level for each in by_level} == {"MAY"}
    assert parse(["--list"]).choose(requirements) == requirements
