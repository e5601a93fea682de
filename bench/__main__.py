"""The whole benchmark: the tunnels, and then what other programs here measure: `python -m bench`, or `make bench`."""

import sys

from bench.others import OTHERS
from bench.tunnel import main

if __name__ == "__main__":
    sys.exit(main(others=OTHERS, prog="python -m bench"))
