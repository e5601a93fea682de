"""From an empty machine to the first reached resource, told by the pages: with real programs and a real browser."""

import json
import re
import shutil
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.quickstart_browser import CHROMIUM
from wardgate.lab import topologies
from wardgate.lab.demo import steps
from wardgate.lab.demo.__main__ import playing
from wardgate.lab.demo.cast import PORTAL_URL, WARDGATE, Cast
from wardgate.lab.demo.story import Story
from wardgate.lab.process import Process
from wardgate.lab.topology import NatKind

pytestmark = [pytest.mark.netns, pytest.mark.timeout(300)]
ROOT = Path(__file__).resolve().parents[2]
LIMIT_S = 300.0


@pytest.mark.skipif(not any(map(shutil.which, CHROMIUM)), reason="there is no Chromium: apt-get install chromium")
def test_the_first_resource_is_reached_within_five_minutes(tmp_path: Path) -> None:
    nat = NatKind.PORT_RESTRICTED
    with playing(Story(), tmp_path, topologies.demo(nat, nat)) as cast:
        began = time.monotonic()
        words = ["portal", "serve", "--listen", "0.0.0.0:8080", "--database", f"sqlite:///{cast.database}"]
        settings = {"WARDGATE_EXTERNAL_URL": PORTAL_URL}
        portal = cast.start("portal", "portal", [str(WARDGATE), *words], env=settings)
        cast.wait(lambda: "make the first one at" in portal.log(), 30.0, "the portal offers its first account", portal)
        link = re.search(r"(/sign-up\?key=\S+)", portal.log())
        assert link
        script = [sys.executable, "-m", "tests.e2e.quickstart_browser", f"http://localhost:8080{link[1]}"]
        home = {"HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
        browser = cast.start("browser", "portal", script, env=home)

        cast.tokens["relay"] = steps.operator(cast, "relay-token")["token"]
        cast.start_relay()
        cast.tokens["gateway"] = said(cast, browser, "gateway")
        cast.start_gateway()
        assert said(cast, browser, "online") is True
        cast.tokens["client"] = said(cast, browser, "client")
        cast.start_client()
        cast.wait(partial(steps.answers, cast, steps.CIDR_URL), 60.0, "the wiki answers", portal)
        took_s = time.monotonic() - began
        assert said(cast, browser, "seen") is True
        assert said(cast, browser, "problems") == []
        assert browser.wait(20.0) == 0

    print(f"the first resource was reached after {took_s:.1f} s")
    assert took_s < LIMIT_S


def said(cast: Cast, browser: Process, what: str) -> Any:
    """What the browser's script copied from the pages."""
    found: list[Any] = []

    def look() -> bool:
        for line in browser.log().splitlines():
            if line.startswith("{") and what in (value := json.loads(line)):
                found.append(value[what])
                return True
        return False

    cast.wait(look, 90.0, f"the pages give {what}")
    return found[0]
