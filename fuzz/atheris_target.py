"""One Python target under atheris: `python -m fuzz.atheris_target NAME [libFuzzer's arguments]`."""

import sys

import atheris

with atheris.instrument_imports(include=["wardgate.wire", "dns", "json", "fuzz.decoders"]):
    from fuzz.decoders import TARGETS


def main() -> None:
    """Fuzzes until libFuzzer's arguments say it is enough, or a bug was found."""
    name = sys.argv.pop(1)
    atheris.Setup(sys.argv, TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
