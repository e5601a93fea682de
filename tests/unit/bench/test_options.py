"""The command line: what is run, and what is refused."""

import pytest
from bench.cast import ENTRIES, QUICK_CONTENDERS
from bench.options import parse
from bench.peers import peers_for
from bench.rows import FAR, FIGURES, NEAR, QUICK_ROWS, ROWS
from bench.run import order


def test_everything_is_run_unless_something_is_chosen() -> None:
    options = parse([])

    assert options.whole
    assert (options.rounds, options.seconds) == (5, 4.0)
    assert options.rows == tuple(ROWS)
    assert options.contenders == tuple(ENTRIES)


def test_choice_keeps_the_order_of_the_tables() -> None:
    options = parse(["--only", "udp-100", "tcp-down", "--contenders", "wardgate", "plain", "--rounds", "2"])

    assert options.rows == ("tcp-down", "udp-100")
    assert options.contenders == ("plain", "wardgate")
    assert not options.whole


def test_quick_is_a_choice_of_rows_and_contenders_that_can_be_changed() -> None:
    assert parse(["--quick"]).rows == QUICK_ROWS
    assert parse(["--quick"]).contenders == QUICK_CONTENDERS
    assert parse(["--quick", "--only", "tcp-up", "--seconds", "3"]).rows == ("tcp-up",)
    assert parse(["--quick", "--seconds", "3"]).seconds == 3.0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--rounds", "0"], "0 is outside 1 to 100"),
        (["--rounds", "1.5"], "'1.5' is no whole number"),
        (["--seconds", "0.5"], "0.5 is outside 1 to 120"),
        (["--seconds", "nan"], "nan is outside 1 to 120"),
        (["--seconds", "long"], "'long' is no number"),
        (["--only", "tcp-sideways"], "invalid choice: 'tcp-sideways'"),
        (["--contenders", "ipsec"], "invalid choice: 'ipsec'"),
        (["--only"], "expected at least one argument"),
    ],
)
def test_bad_value_is_refused_in_words(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(words)

    assert ended.value.code == 2
    assert said in capsys.readouterr().err


def test_every_figure_and_quick_choice_is_of_a_row_that_exists() -> None:
    assert {figure.row for figure in FIGURES} - {"*"} == set(ROWS)
    assert set(QUICK_ROWS) <= set(ROWS)
    assert set(QUICK_CONTENDERS) <= set(ENTRIES)


def test_relayed_contender_is_in_a_lab_of_its_own_and_not_in_the_far_one() -> None:
    relayed = ENTRIES["wardgate-relayed"]

    assert relayed.lab_for(NEAR) == "symmetric"
    assert relayed.lab_for(FAR) is None
    assert ENTRIES["plain"].lab_for(FAR) == FAR


def test_only_what_takes_part_is_built() -> None:
    assert [peer.name for peer in peers_for(["plain", "wardgate", "openvpn"])] == ["the load program"]
    assert [peer.tool for peer in peers_for(list(ENTRIES))] == ["cargo", "go", "cargo"]


def test_order_changes_so_that_nobody_always_begins_or_follows_the_same_one() -> None:
    entries = list(ENTRIES.values())

    orders = [order(entries, number) for number in range(2 * len(entries))]

    assert all(sorted(entry.name for entry in done) == sorted(ENTRIES) for done in orders)
    assert {done[0].name for done in orders} == set(ENTRIES)
    before_wardgate = {
        done[index - 1].name for done in orders for index in range(1, 7) if done[index].name == "wardgate"
    }
    assert before_wardgate == {"gotatun", "wardgate-dns"}
