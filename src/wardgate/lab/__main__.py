"""`python -m wardgate.lab`: the same as `wardgate lab`."""

from wardgate.lab.cli import app

app(prog_name="wardgate lab")
