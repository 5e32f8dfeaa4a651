"""
A spider whose statistics are streamed while it crawls a site, and what it logs.

    TXMETRICS_TCP_LISTEN=5000 scrapy runspider examples/scrapy_spider.py -a url=http://127.0.0.1:8000/

Watch with C{metrics-tcp observe}.
"""

from collections.abc import Iterator
from typing import Any

import scrapy
from scrapy.http import Response


class PagesSpider(scrapy.Spider):
    name = "pages"
    # In a project, this is a line of settings.py.
    custom_settings = {  # noqa: RUF012 - Scrapy's own form
        "STATS_CLASS": "txmetrics_tcp.bridges.scrapy.StreamingStatsCollector"
    }

    def __init__(self, url: str, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.start_urls = [url]

    def parse(self, response: Response) -> Iterator[Any]:
        yield {"url": response.url, "title": response.css("title::text").get()}
        for link in response.css("a::attr(href)").getall():
            yield response.follow(link, self.parse)
