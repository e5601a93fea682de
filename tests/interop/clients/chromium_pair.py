"""Two pages of a browser that may use nothing but a relay: a program of its own, run by the Python of .venv-interop.

It reads one JSON object, {"browser", "arguments", "url", "username", "password", "messages"}, and prints another.
"""

import json
import sys
from typing import Any

from playwright.sync_api import Browser, Page, sync_playwright

BEFORE_S = 15

PAGE = """
const gathered = pc => new Promise(done => {
  const check = () => pc.iceGatheringState === 'complete' && done();
  pc.addEventListener('icegatheringstatechange', check);
  check();
});

window.start = async (server, offer) => {
  window.errors = [];
  const pc = window.pc = new RTCPeerConnection({iceServers: [server], iceTransportPolicy: 'relay'});
  pc.addEventListener('icecandidateerror', error => window.errors.push(`${error.errorCode} ${error.errorText}`));
  // Both ends make the same two channels: in each, one end asks and the other repeats.
  window.channels = [0, 1].map(id => pc.createDataChannel(`channel ${id}`, {negotiated: true, id}));
  if (offer) await pc.setRemoteDescription(offer);
  await pc.setLocalDescription();
  await gathered(pc);
  return pc.localDescription.toJSON();
};

window.finish = answer => window.pc.setRemoteDescription(answer);

window.repeat = id => { window.channels[id].onmessage = message => window.channels[id].send(message.data); };

window.ask = async (id, count, milliseconds) => {
  const channel = window.channels[id];
  const late = new Promise((_, fail) => setTimeout(() => fail(new Error('too late')), milliseconds));
  if (channel.readyState !== 'open') await Promise.race([late, new Promise(done => { channel.onopen = done; })]);
  let unharmed = 0;
  for (let number = 0; number < count; number++) {
    const text = String(number).padEnd(1 + number * 40, '.');
    const answer = new Promise(done => { channel.onmessage = message => done(message.data); });
    channel.send(text);
    if (await Promise.race([late, answer]) === text) unharmed++;
  }
  return unharmed;
};

window.selected = async () => {
  const stats = await window.pc.getStats();
  const transport = [...stats.values()].find(entry => entry.type === 'transport');
  const pair = stats.get(transport.selectedCandidatePairId);
  const local = stats.get(pair.localCandidateId), remote = stats.get(pair.remoteCandidateId);
  return {kinds: [local.candidateType, remote.candidateType], by: local.relayProtocol};
};
"""


def main(settings: dict[str, Any]) -> dict[str, Any]:
    """Connects the pages, has each ask and the other repeat, and tells by what candidates."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=settings["browser"], args=settings["arguments"])
        try:
            return talk(browser, settings)
        finally:
            browser.close()


def talk(browser: Browser, settings: dict[str, Any]) -> dict[str, Any]:
    server = {"urls": settings["url"], "username": settings["username"], "credential": settings["password"]}
    left, right = new_page(browser), new_page(browser)
    offer = left.evaluate("server => start(server)", server)
    if "a=candidate" not in offer["sdp"]:
        return {"version": browser.version, "errors": left.evaluate("errors")}
    answer = right.evaluate("([server, offer]) => start(server, offer)", [server, offer])
    right.evaluate("repeat(0)")
    left.evaluate("repeat(1)")
    left.evaluate("answer => finish(answer)", answer)
    asked = "([id, count, milliseconds]) => ask(id, count, milliseconds)"
    echoed = [
        page.evaluate(asked, [channel, settings["messages"], BEFORE_S * 1000])
        for channel, page in enumerate((left, right))
    ]
    return {
        "version": browser.version,
        "echoed": echoed,
        "selected": [page.evaluate("selected()") for page in (left, right)],
    }


def new_page(browser: Browser) -> Page:
    """A page in a context of its own: nothing is shared with another."""
    page = browser.new_context().new_page()
    page.add_script_tag(content=PAGE)
    return page


if __name__ == "__main__":
    print(json.dumps(main(json.load(sys.stdin))))
