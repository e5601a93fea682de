"""Many short random runs of the whole product against the model, within a budget; found cases are played again."""

import os
import time
from pathlib import Path

import pytest

from tests.model.product_model import Run

pytestmark = pytest.mark.timeout(10 * 3600)
"""The budget below ends it sooner."""

CORPUS = Path(__file__).with_name("corpus.txt")
RUNS = int(os.environ.get("MODEL_RUNS", "2000"))
BUDGET_S = float(os.environ.get("MODEL_BUDGET_S", "100"))
FIRST = int(os.environ.get("MODEL_FIRST_SEED", "1"))


def test_cases_that_were_found_before_stay_well() -> None:
    for line in CORPUS.read_text().splitlines():
        seed = line.partition("#")[0].strip()
        if seed:
            Run(int(seed)).play()


def test_a_seed_makes_the_same_run_datagram_for_datagram() -> None:
    assert Run(17).play().digest() == Run(17).play().digest()
    assert Run(17).play().digest() != Run(18).play().digest()


def test_what_must_get_through_does_and_what_must_not_never_does() -> None:
    """Ends early when its time is over, so that a slow machine tests less, not longer."""
    until = time.monotonic() + BUDGET_S
    played = 0
    for seed in range(FIRST, FIRST + RUNS):
        Run(seed).play()
        played += 1
        if time.monotonic() > until:
            break
    print(f"{played} runs")
    assert played >= min(RUNS, 50)
