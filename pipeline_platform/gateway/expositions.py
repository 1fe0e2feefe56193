"""The formats of /metrics: the plain one of version 0.0.4, unless Accept asks for a newer one or for OpenMetrics."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from pipeline_platform.core.media_types import accepted_types
from pipeline_platform.gateway.fresh import Fresh
from pipeline_platform.gateway.gauges import GaugeReader
from pipeline_platform.gateway.metrics import Metrics

Encoder = Callable[[CollectorRegistry], bytes]

# What each may be asked for as. Of others the client library would say in its answer that they are there.
VERSIONS = {"application/openmetrics-text": ("", "1.0.0"), "text/plain": ("", "0.0.4", "1.0.0")}
ESCAPINGS = ("allow-utf-8", "underscores", "dots", "values")


def exposition(accept: str) -> tuple[Encoder, str]:
    """The encoder and the content type for an Accept: of the formats it names, the dearest that there is."""
    for media, quality in accepted_types(accept):
        version = "".join(media.values("version")[:1])
        if quality > 0 and version in VERSIONS.get(media.name, ()):
            escaping = next((each for each in media.values("escaping") if each in ESCAPINGS), "underscores")
            wanted = f"{media.name};version={version};escaping={escaping}" if version else media.name
            return choose_encoder(wanted)
    return choose_encoder("")


class Pages:
    """The page in each of its formats, made at most once a second whoever asks."""

    def __init__(self, gauges: GaugeReader, metrics: Metrics, threads: Executor) -> None:
        self._gauges, self._metrics, self._threads = gauges, metrics, threads
        self._pages: dict[str, Fresh[bytes]] = {}  # by content type, of which there are ten

    async def read(self, accept: str) -> tuple[bytes, str]:
        """The page for an Accept, and its content type."""
        encoder, content_type = exposition(accept)
        page = self._pages.get(content_type)
        if page is None:
            page = self._pages[content_type] = Fresh(lambda: self._page(encoder), self._threads)
        return await page.read(), content_type

    def _page(self, encoder: Encoder) -> bytes:
        self._gauges.refresh()
        return self._metrics.page(encoder)
