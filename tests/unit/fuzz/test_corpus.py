"""The kept corpus of the Python decoders, without any fuzzer."""

from pathlib import Path

import pytest
from fuzz.decoders import TARGETS

CORPUS = Path(__file__).parents[3] / "fuzz" / "corpus"


@pytest.mark.parametrize("name", TARGETS)
def test_every_file_of_the_corpus_passes(name: str) -> None:
    files = sorted((CORPUS / name).iterdir())
    assert files
    for file in files:
        TARGETS[name](file.read_bytes())


def test_every_corpus_has_a_target() -> None:
    native = {one.name for one in CORPUS.iterdir() if one.name.startswith("native-")}
    assert {one.name for one in CORPUS.iterdir()} - native == set(TARGETS)
