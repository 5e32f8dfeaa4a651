"""
Take the pictures of the page for browsers, docs/page.png, docs/page-histogram.png and
docs/page-phone.png::

    python docs/contributing/make_page_pictures.py [DIRECTORY]

They show the simulated shops of make_picture.py.  Needs chromium and chromedriver.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "docs" / "contributing")]

from make_picture import WHEN, Shop  # noqa: E402
from twisted.internet import reactor as _reactor  # noqa: E402
from twisted.internet.task import Clock, LoopingCall  # noqa: E402
from twisted.internet.threads import deferToThread  # noqa: E402
from twisted.python.failure import Failure  # noqa: E402

from tests.browser import Browser  # noqa: E402
from txmetrics_tcp import Status  # noqa: E402
from txmetrics_tcp.web._access import Access  # noqa: E402
from txmetrics_tcp.web._feed import Feed  # noqa: E402
from txmetrics_tcp.web._resource import PageResource  # noqa: E402
from txmetrics_tcp.web._site import PageSite  # noqa: E402

reactor: Any = _reactor

PAST = 420
"""The number of seconds that are simulated before the pictures."""

OPEN = """
    for (const wanted of arguments)
        metrics.open([...metrics.live.series.values()].find(({ name }) => name === wanted));
"""
"""A script that charts the first series of each name."""


class Shops:
    """The shops, and the page that shows them."""

    def __init__(self) -> None:
        self._clock = Clock()
        self._shops = [Shop("127.0.0.1:5000", 1), Shop("web2.example:5000", 2)]
        self._second = 0
        feed = Feed(self._clock, 600, True, int, int, lambda: WHEN + self._clock.seconds())
        feed.start()
        feed.show(self._shops)
        self.site = PageSite(reactor, PageResource(feed, Access(), 50))
        while self._second < PAST:
            self.step(0.5)

    def step(self, seconds: float) -> None:
        """Let time pass."""
        if self._clock.seconds() >= self._second:
            for shop, share in zip(self._shops, (1.0, 0.6), strict=True):
                shop.feed(self._second, share, Status("shop 2.4", 1))
            self._second += 1
            if self._second == PAST - 130:
                self._shops[1].view.ingest([Status("shop 2.4", 1, 0, 1204)])
        self._clock.advance(seconds)


def take(port: int, directory: Path) -> None:
    """Open the page, and save what it shows."""
    address = f"http://127.0.0.1:{port}/"
    with Browser() as browser:

        def picture(name: str, width: int, height: int, fragment: str, *charts: str) -> None:
            browser.resize(width, height)
            browser.open(address)
            browser.run("localStorage.setItem('txmetrics-theme', 'light')")
            browser.open(address + fragment)
            browser.wait_for(
                "metrics.live.series.size > 20 && document.querySelector('#body .row')"
            )
            browser.run(OPEN, *charts)
            browser.wait_for(
                "document.querySelectorAll('.chart .uplot').length >= given[0]", len(charts)
            )
            # The rates, percentiles and charts of some seconds.
            browser.run("await new Promise((resolve) => setTimeout(resolve, 4000))")
            (directory / name).write_bytes(browser.screenshot())

        picture("page.png", 1600, 620, "", "http_requests_total", "http_request_seconds")
        picture("page-histogram.png", 1000, 560, "#filter=kind:h", "http_request_seconds")
        picture("page-phone.png", 390, 700, "#filter=http")


def main() -> None:
    directory = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs"
    shops = Shops()
    port = reactor.listenTCP(0, shops.site, interface="127.0.0.1")
    LoopingCall(shops.step, 0.125).start(0.125)
    failures: list[Failure] = []
    done = deferToThread(take, port.getHost().port, directory)
    done.addErrback(failures.append).addBoth(lambda result: reactor.stop())
    reactor.run()
    if failures:
        sys.exit(failures[0].getTraceback())


if __name__ == "__main__":
    os.environ["TZ"] = "UTC"
    time.tzset()
    main()
