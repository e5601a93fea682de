"""A thousand simulated hours of the whole product: does it still work, and did anything grow?

    .venv/bin/python -m tests.model.hours [--hours 1000] [--first-seed 1]

Each run is ten hours of one client with its gateways and relays: long quiet stretches, and between them the model's
random operations, each with its checks. What is kept at the end of a run is told: flows, peers, resident memory.
"""

import argparse
import sys
import time
from pathlib import Path

from tests.model.product_model import Run

HOURS_EACH = 10.0
HOUR_S = 3600.0
QUIET_S = (300.0, 900.0, 1800.0)


def resident_mb() -> float:
    """This process's memory."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


def main() -> int:
    """Plays until the hours are over; gives the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=float, default=1000.0, metavar="N", help="simulated hours (1000)")
    parser.add_argument("--first-seed", type=int, default=1, metavar="N", help="where to begin (1)")
    options = parser.parse_args()
    began, played, seed = time.monotonic(), 0.0, options.first_seed
    while played < options.hours:
        run = Run(seed)
        start = run.lab.world.now
        while run.lab.world.now < start + HOURS_EACH * HOUR_S:
            run.play(steps=3)
            run.lab.run(run.random.choice(QUIET_S))
            run.lab.world.delivered.clear()
        played += (run.lab.world.now - start) / HOUR_S
        flows = run.lab.client.program.engine.flow_count(), run.lab.gateways[0].program.engine.flow_count()
        print(f"seed {seed}: {played:,.0f} h in {time.monotonic() - began:.0f} s; flows {flows[0]} and {flows[1]}, "
              f"{resident_mb():.0f} MB", flush=True)  # fmt: skip
        seed += 1
    print(f"{played:,.0f} simulated hours in {time.monotonic() - began:.0f} s; nothing was wrong")
    return 0


if __name__ == "__main__":
    sys.exit(main())
