"""What a service counts of itself, in Prometheus' text format."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Mapping

from edge_cmcl.device.exposition import Sample, exposition

BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Figures:
    """Requests by path and status, and how long they took; any thread may use it.

    Paths are the service's own, so that clients cannot make up more of them.
    """

    def __init__(self) -> None:
        self._requests: Counter[tuple[str, int]] = Counter()
        self._buckets: Counter[tuple[str, int]] = Counter()
        self._seconds: dict[str, float] = {}
        self._lock = threading.Lock()

    def count(self, path: str, status: int, seconds: float) -> None:
        """Count one request that was answered."""
        place = next((i for i, bound in enumerate(BUCKETS_S) if seconds <= bound), len(BUCKETS_S))
        with self._lock:
            self._requests[path, status] += 1
            self._buckets[path, place] += 1
            self._seconds[path] = self._seconds.get(path, 0.0) + seconds

    @property
    def answered(self) -> int:
        """All requests so far."""
        with self._lock:
            return sum(self._requests.values())

    def told(self, gauges: Mapping[str, tuple[str, float]], counters: Mapping[str, tuple[str, float]]) -> str:
        """Return these figures, with more of the service: of each name its meaning and its value."""
        with self._lock:
            requests: list[Sample] = [
                ({"path": path, "status": str(status)}, n) for (path, status), n in sorted(self._requests.items())
            ]
            lines = list(self._histogram())
        listed = [("requests_total", "Requests answered.", requests)]
        listed += [(name, text, [({}, value)]) for name, (text, value) in counters.items()]
        shown = exposition(listed, "counter") + exposition(
            (name, text, [({}, value)]) for name, (text, value) in gauges.items()
        )
        return shown + "\n".join([*lines, ""])

    def _histogram(self) -> Iterator[str]:
        name = "edge_cmcl_request_seconds"
        yield f"# HELP {name} How long requests took."
        yield f"# TYPE {name} histogram"
        for path in sorted(self._seconds):
            total = 0
            for place, bound in enumerate([*map(repr, BUCKETS_S), "+Inf"]):
                total += self._buckets[path, place]
                yield f'{name}_bucket{{path="{path}",le="{bound}"}} {total}'
            yield f'{name}_sum{{path="{path}"}} {self._seconds[path]!r}'
            yield f'{name}_count{{path="{path}"}} {total}'
