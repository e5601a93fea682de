"""From samples to medians, ratios, bars and tables."""

import json

import pytest
from bench.bars import Bar
from bench.options import Options
from bench.ratio_bars import bars_of, held, read_bars
from bench.report import Report, bar_table, table
from bench.results import Results, Sample
from bench.rows import FIGURES, Better, Figure
from bench.run import per_unit

RATE = Figure("tcp-down", "gbit_per_s", "TCP, one flow down", "Gbit/s")
MEMORY = Figure("*", "peak_rss_mb", "memory", "MB", Better.LOWER, peak=True)


def results(**by_contender: dict[str, list[dict[str, float]]]) -> Results:
    """Samples by contender (with `_` for `-`), row and round."""
    made = Results([name.replace("_", "-") for name in by_contender])
    for name, rows in by_contender.items():
        for row, rounds in rows.items():
            for number, values in enumerate(rounds):
                made.samples.append(Sample(number, row, name.replace("_", "-"), 0.0, values))
    return made


def rates(*values: float) -> dict[str, list[dict[str, float]]]:
    return {"tcp-down": [{"gbit_per_s": value} for value in values]}


def test_ratio_is_the_median_of_the_rounds_not_the_ratio_of_medians() -> None:
    measured = results(wardgate=rates(2.0, 8.0, 3.0), wireguard_go=rates(1.0, 2.0, 3.0))

    assert measured.value(RATE, "wardgate") == 3.0
    assert measured.ratio(RATE, "wardgate", "wireguard-go") == 2.0
    assert measured.spread(RATE, "wardgate") == (2.0, 8.0)


def test_failed_sample_is_left_out_and_told() -> None:
    measured = results(wardgate=rates(2.0), openvpn=rates(0.5))
    measured.samples.append(Sample(1, "tcp-down", "openvpn", 1.0, {}, "iperf3: no route"))
    measured.samples.append(Sample(1, "tcp-down", "wardgate", 1.0, {"gbit_per_s": 100.0}))

    assert measured.ratio(RATE, "wardgate", "openvpn") == 4.0
    assert [sample.error for sample in measured.failures()] == ["iperf3: no route"]


def test_peak_is_the_most_of_all_rows_and_rounds() -> None:
    measured = results(
        wardgate={"tcp-up": [{"peak_rss_mb": 10.0}, {"peak_rss_mb": 30.0}], "tcp-10": [{"peak_rss_mb": 20.0}]},
        openvpn={"tcp-up": [{"peak_rss_mb": 60.0}]},
    )

    assert measured.value(MEMORY, "wardgate") == 30.0
    assert measured.ratio(MEMORY, "wardgate", "openvpn") == 0.5


def test_what_nobody_measured_has_no_value() -> None:
    assert results(wardgate=rates()).value(RATE, "wardgate") is None
    assert results(wardgate=rates(1.0), plain={}).ratio(RATE, "wardgate", "plain") is None


def test_bars_are_the_ones_that_were_measured() -> None:
    measured = results(wardgate=rates(3.0, 3.0), wireguard_go=rates(1.0, 2.0), plain=rates(10.0, 15.0))

    bars = {bar.name: bar for bar in bars_of(measured)}

    assert set(bars) == {
        "one TCP flow down, against wireguard-go",
        "one TCP flow down, against plain forwarding",
    }
    assert bars["one TCP flow down, against wireguard-go"].value == 2.25
    assert bars["one TCP flow down, against wireguard-go"].holds
    assert bars["one TCP flow down, against plain forwarding"].value == 0.25
    assert bars["one TCP flow down, against plain forwarding"].holds
    assert held(list(bars.values())) == "2 of 2 bars hold"


def test_cost_bar_takes_both_directions_and_is_kept_from_below() -> None:
    def costs(down: float, up: float) -> dict[str, list[dict[str, float]]]:
        return {"tcp-down": [{"cpu_s_per_gb": down}], "tcp-up": [{"cpu_s_per_gb": up}]}

    (bar,) = bars_of(results(wardgate=costs(3.0, 5.0), wireguard_go=costs(10.0, 10.0)))

    assert bar.value == pytest.approx(0.4)
    assert bar.is_ceiling
    assert bar.holds


def test_limit_itself_is_enough() -> None:
    assert Bar("a", 2.0, "x", limit=2.0).holds
    assert not Bar("a", 1.99, "x", limit=2.0).holds
    assert Bar("a", 2.0, "x", limit=2.0, is_ceiling=True).holds
    assert not Bar("a", 2.01, "x", limit=2.0, is_ceiling=True).holds


def test_bars_of_another_benchmark_say_by_holding_which_way_is_good() -> None:
    floor = {"name": "flows", "value": 9000.0, "unit": "1/s", "limit": 5000.0, "holds": True}
    ceiling = {"name": "memory", "value": 300.0, "unit": "MB", "limit": 250.0, "holds": False}

    bars = read_bars({"bars": [floor, ceiling]})

    assert [(bar.is_ceiling, bar.holds) for bar in bars] == [(False, True), (True, False)]
    assert [bar.is_ceiling for bar in read_bars({"bars": [bar.as_json() for bar in bars]})] == [False, True]


@pytest.mark.parametrize("document", [None, [], {}, {"bars": [{"name": "x"}]}, {"bars": 5}])
def test_document_without_bars_is_refused(document: object) -> None:
    with pytest.raises(ValueError):
        read_bars(document)


def test_costs_are_per_gigabyte_and_per_packet() -> None:
    values = {"bytes": 2e9, "packets": 1e6, "cpu_s": 4.0, "switches": 100.0, "machine_s": 6.0}

    assert per_unit(values, has_programs=True, instructions=5_000_000) == {
        "machine_s_per_gb": 3.0,
        "cpu_s_per_gb": 2.0,
        "switches_per_gb": 50.0,
        "cpu_us_per_packet": pytest.approx(4.0),
        "instructions_per_packet": 5.0,
    }
    assert per_unit(values, has_programs=False) == {"machine_s_per_gb": 3.0}
    assert per_unit({"cpu_s": 1.0, "switches": 1.0, "machine_s": 1.0}, has_programs=True) == {}


def test_every_figure_has_a_name_of_its_own() -> None:
    assert len({(figure.row, figure.key) for figure in FIGURES}) == len(FIGURES)
    assert len({figure.title for figure in FIGURES}) == len(FIGURES)


def test_table_is_markdown_with_aligned_columns() -> None:
    assert table(["", "a"], [["first", "1"], ["b", "22"]]).splitlines() == [
        "|       |  a |",
        "|-------|---:|",
        "| first |  1 |",
        "| b     | 22 |",
    ]


def test_bar_that_does_not_hold_stands_out() -> None:
    text = bar_table([Bar("fast", 1.5, "x", 2.0)])

    assert "at least 2 x" in text
    assert "**no**" in text


def test_report_has_ratios_to_each_base_and_every_sample() -> None:
    measured = results(plain=rates(10.0), openvpn=rates(0.25), wireguard_go=rates(1.0), wardgate=rates(2.5))
    options = Options(1, 1.0, ("tcp-down",), ("plain", "openvpn", "wireguard-go", "wardgate"))
    report = Report("2026-01-01T0000Z", options, measured, {"cores": "2"}, {"iperf3": "3.12"}, {}, ["a note"])

    text, document = report.markdown(), json.loads(json.dumps(report.as_json()))

    assert "| TCP, one flow down (higher is better) |     10.00 |           2.50 |               0.25 |" in text
    assert "3 of 3 bars hold" in text
    assert "**a note**" in text
    assert document["figures"][0]["ratios"]["openvpn"]["wardgate"] == 10.0
    assert len(document["samples"]) == 4
    assert {bar["name"]: bar["holds"] for bar in document["bars"]}["one TCP flow down, against OpenVPN"] is True
