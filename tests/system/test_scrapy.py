"""
A crawl of a local site by Scrapy.
"""

from __future__ import annotations

import ast
import re
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests import needs
from tests.daemon import LIMIT, Daemon
from tests.programs import EXAMPLES, ExampleTestCase, Stream, total
from tests.reader import Reader
from txmetrics_tcp._exporter.environment import VARIABLE

PAGES = 5
"""The number of pages; the last one has a link to a page that does not exist."""

DEFAULT = "scrapy.statscollectors.MemoryStatsCollector"
OURS = "txmetrics_tcp.bridges.scrapy.StreamingStatsCollector"

VARYING = re.compile(r"time|memusage|bytes|per_minute|log_count")
"""Statistics that depend on the run; the exporter logs one line."""


class Site:
    """
    A web site of a few pages.

    @ivar released: until this is set, no page is answered.
    """

    def __init__(self, case: ExampleTestCase) -> None:
        self.released = released = threading.Event()

        class Page(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                released.wait(LIMIT)
                number = int(self.path.rpartition("/")[2] or 1)
                self.send_response(200 if number <= PAGES else 404)
                self.send_header("Content-Type", "text/html")
                self.end_headers()
                self.wfile.write(f"<title>{number}</title><a href='{number + 1}'>".encode())

            def log_message(self, format: str, *arguments: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Page)
        thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        thread.start()
        case.addCleanup(self._server.server_close)
        case.addCleanup(thread.join)
        case.addCleanup(self._server.shutdown)
        case.addCleanup(released.set)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/"


class CrawlTests(ExampleTestCase):
    skip = needs("scrapy")

    def crawl(
        self, watch: Callable[[Daemon, Site], None], *settings: str
    ) -> tuple[dict[str, object], str]:
        """
        Crawl a site with the spider of the example.

        @param watch: called while the first page is not answered; releases the site.
        @return: Scrapy's statistics, and its log.
        """
        site = Site(self)
        arguments = ["-s", "TELNETCONSOLE_ENABLED=0", "-s", "REMOTE_CONTROL_ENABLED=0"]
        for setting in settings:
            arguments += ["-s", setting]
        crawl = Daemon(
            self,
            *("runspider", str(EXAMPLES / "scrapy_spider.py"), "-a", f"url={site.url}"),
            *("--logfile", "/dev/stdout", *arguments),
            runner=["env", f"{VARIABLE}=0", sys.executable, "-u", "-m", "scrapy"],
        )
        watch(crawl, site)
        log = self.ends(crawl)
        dumped = re.search(r"Dumping Scrapy stats:\n(\{.*?\})\n2", log, re.DOTALL)
        assert dumped is not None, log
        text = re.sub(r"datetime\.datetime\(.*?utc\)", "None", dumped[1])
        return ast.literal_eval(text), log

    def test_stream(self) -> None:
        """The stream has Scrapy's statistics, and Scrapy's own are those without it."""
        read: list[Reader] = []

        def watch(crawl: Daemon, site: Site) -> None:
            stream = Stream(self, crawl.port)
            # The client is connected.
            stream.read_until(lambda reader: total(reader, "scrapy_scheduler_enqueued_total") == 1)
            site.released.set()
            read.append(stream.read_all())

        stats, _ = self.crawl(watch)
        [reader] = read
        for labels, expected in (({"status": "200"}, PAGES), ({"status": "404"}, 1)):
            found = total(
                reader, "scrapy_downloader_response_status_total", spider="pages", **labels
            )
            self.assertEqual(found, expected)
        self.assertEqual(total(reader, "scrapy_item_scraped_total"), PAGES)
        self.assertEqual(total(reader, "scrapy_finish_reason", reason="finished"), 1)
        self.assertEqual(
            total(reader, "scrapy_downloader_response_bytes_total"),
            stats["downloader/response_bytes"],
        )
        self.assertEqual(total(reader, "scrapy_log_total", level="DEBUG"), stats["log_count/DEBUG"])

        plain, log = self.crawl(lambda crawl, site: site.released.set(), f"STATS_CLASS={DEFAULT}")
        self.assertNotIn(OURS, log)

        def fixed(stats: dict[str, object]) -> dict[str, object]:
            return {key: value for key, value in stats.items() if not VARYING.search(key)}

        self.assertEqual(fixed(stats), fixed(plain))
        self.assertEqual(stats.keys(), plain.keys())

    def test_reactor(self) -> None:
        """Importing the collector imports no reactor, so Scrapy installs the one that it wants."""
        script = f"""
            import sys
            from scrapy.utils.misc import load_object
            load_object({OURS!r})
            assert "twisted.internet.reactor" not in sys.modules
        """
        program = Daemon(
            self, "-c", "\n".join(map(str.strip, script.splitlines())), runner=[sys.executable]
        )
        self.ends(program)

        def watch(crawl: Daemon, site: Site) -> None:
            site.released.set()

        for reactor in ("asyncioreactor.AsyncioSelectorReactor", "selectreactor.SelectReactor"):
            stats, log = self.crawl(watch, f"TWISTED_REACTOR=twisted.internet.{reactor}")
            self.assertIn(f"Using reactor: twisted.internet.{reactor}", log)
            self.assertEqual(stats["item_scraped_count"], PAGES)
