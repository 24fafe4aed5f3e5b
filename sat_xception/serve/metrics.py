"""What the server counts, for Prometheus: TensorFlow Serving's metrics by its names where it has them, and our own.

Names, labels and buckets are those of its servables/tensorflow/util.cc, batching_session.cc and prometheus_exporter.cc.
Like there, latencies are in microseconds, statuses are codes, and the API `Predict` of gRPC is `predict` over REST.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from sat_xception.serve.protocol import Code

__all__ = ["CONTENT_TYPE", "METRICS_PATH", "Metrics"]

METRICS_PATH = "/monitoring/prometheus/metrics"
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
# monitoring::Buckets::Exponential(scale, factor, count) of TensorFlow.
_LATENCY_BUCKETS = [10 * 1.8**power for power in range(33)]
_QUEUE_BUCKETS = [100 * 1.2**power for power in range(52)]
_SIZE_BUCKETS = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512]


class Metrics:
    """Counts of one server.

    Attributes:
        answered: Predictions that were answered.
        failed: Predictions that were refused or failed.
        waiting: Gauge of the requests that wait for a run.
        under_way: Gauge of the requests that were let in.
        batch_requests: Histogram of the requests merged into a run.
    """

    def __init__(self, name: str, version: Callable[[], int | None]) -> None:
        """Start at zero.

        Args:
            name: The model's name. Requests for other names are counted under an empty one: a client can't make up
                series.
            version: Returns the version that answers, or None.
        """
        self._name = name
        self._registry = CollectorRegistry()
        self.answered = self.failed = 0
        self._requests = _PlainCounter(
            ":tensorflow:serving:request_count", "The total number of requests.", ("model_name", "status")
        )
        self._runs = _PlainCounter(
            ":tensorflow:serving:batching_session:wrapped_run_count",
            "Total count of run calls on the wrapped session",
            (),
        )
        for counter in (self._requests, self._runs):
            self._registry.register(counter)
        self._latency = self._histogram(
            ":tensorflow:serving:request_latency",
            "Distribution of wall time (in microseconds) for Tensorflow Serving request.",
            _LATENCY_BUCKETS,
            ("model_name", "API", "entrypoint"),
        )
        self._run_latency = self._histogram(
            ":tensorflow:serving:runtime_latency",
            "Distribution of wall time (in microseconds) for Tensorflow runtime.",
            _LATENCY_BUCKETS,
            ("model_name", "API", "runtime"),
        ).labels(name, "Predict", "TF1")
        self._queued = self._histogram(
            ":tensorflow:serving:batching_session:queuing_latency",
            "Distribution of wall time spent (in microseconds) in queuing",
            _QUEUE_BUCKETS,
            ("thread_pool_name",),
        ).labels("predict")
        self._batch_rows = self._histogram("sat_xception_batch_rows", "Images in a run of the model.", _SIZE_BUCKETS)
        self.batch_requests = self._histogram(
            "sat_xception_batch_requests", "Requests merged into a run of the model.", _SIZE_BUCKETS
        )
        self.waiting = Gauge("sat_xception_queue_length", "Requests that wait for a run.", registry=self._registry)
        self.under_way = Gauge(
            "sat_xception_requests_under_way",
            "Requests that were let in and not answered yet.",
            registry=self._registry,
        )
        self._refused = Counter(
            "sat_xception_requests_refused",
            "Requests that were told to come back, because too many were under way.",
            registry=self._registry,
        )
        Gauge(
            "sat_xception_model_version", "Version that answers; NaN for none.", registry=self._registry
        ).set_function(lambda: math.nan if (number := version()) is None else number)

    def exposition(self) -> bytes:
        """Return everything in Prometheus's text format."""
        return generate_latest(self._registry)

    def count_request(self, name: str, api: str, entrypoint: str, code: Code, seconds: float) -> None:
        """Count a prediction; its time only where it was answered, as TensorFlow Serving does.

        Args:
            name: Model that it asked for.
            api: "predict" over REST, "Predict" over gRPC.
            entrypoint: "REST" or "GRPC".
            code: How it ended.
            seconds: How long it took.
        """
        label = name if name == self._name else ""
        self._requests.add(label, code.name)
        self.answered += code is Code.OK
        self.failed += code is not Code.OK
        if code is Code.OK:
            self._latency.labels(label, api, entrypoint).observe(seconds * 1e6)

    def count_run(self, seconds: float, rows: int) -> None:
        """Count a run of the model."""
        self._runs.add()
        self._run_latency.observe(seconds * 1e6)
        self._batch_rows.observe(rows)

    def count_wait(self, seconds: float) -> None:
        """Count how long a request waited for its run."""
        self._queued.observe(seconds * 1e6)

    def count_refusal(self) -> None:
        """Count a request that was told to come back."""
        self._refused.inc()

    def _histogram(self, name: str, text: str, buckets: Iterable[float], labels: Iterable[str] = ()) -> Histogram:
        return Histogram(name, text, labels, registry=self._registry, buckets=list(buckets))


class _PlainCounter(Collector):
    """A counter without the `_total` that Prometheus's client puts behind every counter's name."""

    def __init__(self, name: str, text: str, labels: tuple[str, ...]) -> None:
        self._name, self._text, self._labels = name, text, labels
        self._lock = threading.Lock()
        self._values: dict[tuple[str, ...], int] = {} if labels else {(): 0}

    def add(self, *labels: str) -> None:
        with self._lock:
            self._values[labels] = self._values.get(labels, 0) + 1

    def collect(self) -> Iterator[Metric]:
        # Untyped, because its client also renames a metric of the type "counter".
        metric = Metric(self._name, self._text, "unknown")
        for labels, value in dict(self._values).items():
            metric.add_sample(self._name, dict(zip(self._labels, labels, strict=True)), value)
        yield metric
