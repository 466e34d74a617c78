"""What the server tells Prometheus."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from weft.engine import Reply

if TYPE_CHECKING:
    from weft.server.service import Service

FIRST_TOKEN = (0.025, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6)
"""Seconds to the first token, as bounds of a histogram."""
SPEED = (1, 2, 5, 10, 20, 40, 80, 160, 320)
"""Tokens a second of a reply, as bounds of a histogram."""


class Metrics:
    """Counts requests, tokens and times.

    Args:
        service: what is asked how things stand when somebody looks.
    """

    def __init__(self, service: Service) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter("weft_requests", "Responses.", ["route", "status"], registry=self.registry)
        self.tokens = Counter("weft_tokens", "Tokens that were read and said.", ["kind"], registry=self.registry)
        self.first_token = Histogram(
            "weft_time_to_first_token_seconds",
            "From a request to the first token of its reply.",
            buckets=FIRST_TOKEN,
            registry=self.registry,
        )
        self.speed = Histogram(
            "weft_reply_tokens_per_second",
            "Tokens a second of a reply, from its first token on.",
            buckets=SPEED,
            registry=self.registry,
        )
        self.registry.register(_Standing(service))

    def text(self) -> bytes:
        """All of it in Prometheus's text format."""
        return generate_latest(self.registry)

    def request(self, route: str, status: int) -> None:
        """A response has ended."""
        self.requests.labels(route, str(status)).inc()

    def watch(self) -> Watch:
        """A reply begins."""
        return Watch(self)


class Watch:
    """Times one reply.

    Args:
        metrics: where it is counted.
    """

    def __init__(self, metrics: Metrics) -> None:
        self.metrics, self.started = metrics, time.perf_counter()
        self.first = self.last = 0.0

    def token(self) -> None:
        """A token has come."""
        self.last = time.perf_counter()
        if not self.first:
            self.first = self.last
            self.metrics.first_token.observe(self.first - self.started)

    def end(self, reply: Reply) -> None:
        """The reply has ended, or was left."""
        said = len(reply.said)
        self.metrics.tokens.labels("prompt").inc(len(reply.prompt.tokens))
        self.metrics.tokens.labels("completion").inc(said)
        if said > 1 and not reply.refused:  # the words of a refusal are not decoded one by one
            self.metrics.speed.observe((said - 1) / max(1e-6, self.last - self.first))


class _Standing(Collector):
    """How things stand at the moment."""

    def __init__(self, service: Service) -> None:
        self.service = service

    def collect(self) -> Iterator[Metric]:
        """As Prometheus's client has it."""
        service, load = self.service, self.service.engine.load
        cache, contents, answers = service.model.memory_cache, service.conversations.contents, service.answers
        gauges = {
            "weft_replies_running": ("Replies that are decoded.", load["running"]),
            "weft_replies_waiting": ("Requests that wait.", load["waiting"]),
            "weft_running_memory_bytes": ("Bytes of memories that running replies read.", load["memory_bytes"]),
            "weft_memory_cache_bytes": ("Bytes of read memories that are kept.", cache.bytes),
            "weft_memory_cache_limit_bytes": ("Bytes that may be kept of them.", cache.max_bytes),
            "weft_memory_cache_entries": ("Read memories that are kept.", len(cache)),
            "weft_contents_bytes": ("Bytes kept under the ids of memories.", contents.bytes),
            "weft_answers_bytes": ("Bytes of answers kept to be explained.", answers.bytes),
        }
        counters = {
            "weft_memory_cache_hits": ("Memories that had been read before.", cache.hits),
            "weft_memory_cache_misses": ("Memories that had to be read.", cache.misses),
            "weft_memory_cache_evictions": ("Read memories that had to make room.", cache.evictions),
            "weft_contents_evictions": ("Contents that had to make room.", contents.dropped),
            "weft_answers_evictions": ("Answers that had to make room.", answers.dropped),
        }
        for name, (help, value) in gauges.items():
            yield GaugeMetricFamily(name, help, value)
        for name, (help, value) in counters.items():
            yield CounterMetricFamily(name, help, value)
