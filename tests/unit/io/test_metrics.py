"""Figures as Prometheus text."""

from prometheus_client.parser import text_string_to_metric_families

from wardgate.io.metrics import render


def test_nested_numbers_become_samples_that_prometheus_reads() -> None:
    text = render(
        "gateway", {"loop": {"runs": 3, "step seconds": {"drain": 0.5}}, "up": True, "name": "x", "list": [1]}
    )

    samples = {
        sample.name: sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }
    assert samples == {
        "wardgate_build_info": 1.0,
        "wardgate_gateway_loop_runs": 3.0,
        "wardgate_gateway_loop_step_seconds_drain": 0.5,
        "wardgate_gateway_up": 1.0,
    }
