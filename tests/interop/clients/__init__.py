"""Our relay under clients that others wrote: `make interop`.

The modules are named `check_*` and not `test_*`, for `make test` to leave them alone: what they need is downloaded.
"""
