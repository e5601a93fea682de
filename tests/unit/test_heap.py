"""What is there before a program serves is not collected again."""

import subprocess
import sys

QUESTION = """
import gc
import wardgate.client.main
from wardgate.heap import freeze_heap

before = len(gc.get_objects())
freeze_heap()
print(before, gc.get_freeze_count(), len(gc.get_objects()))
"""


def test_a_full_collection_looks_at_nothing_that_was_there_before() -> None:
    # In a process of its own: this one's garbage shall not be kept for ever.
    printed = subprocess.run([sys.executable, "-c", QUESTION], check=True, capture_output=True, text=True).stdout
    before, frozen, left = map(int, printed.split())

    assert before > 10_000
    assert frozen > before * 0.9
    assert left < before * 0.1
