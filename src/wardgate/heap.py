"""What a program has made by the time that it starts to serve need not be looked through again and again."""

import gc


def freeze_heap() -> None:
    """Collects once, and leaves everything that is there now out of later collections.

    Modules, models and settings stay to the end. A full collection looked at all of them each time, which took 0.2 s on
    a busy machine: time in which a control loop decides nothing.
    """
    gc.collect()
    gc.freeze()
