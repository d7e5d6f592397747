"""What an operator watches, in Prometheus' text format: requests, their seconds, refusals, and the engine's own figures.

Routes are counted by their templates, so that no id, prompt or key becomes a label, and a stranger cannot make new ones.
"""

import threading
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

_BUCKETS = (0.005, 0.02, 0.1, 0.5, 2.0, 10.0, 60.0, 300.0)  # seconds


class Metrics:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: dict[tuple[str, str, int], int] = defaultdict(int)
        self._seconds: dict[str, list[float]] = defaultdict(lambda: [0.0] * (len(_BUCKETS) + 2))  # buckets, all, sum
        self._events: dict[str, int] = defaultdict(int)

    def request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Counts an answered request; `route` is a template."""
        with self._lock:
            self._requests[method, route, status] += 1
            row = self._seconds[route]
            for i, bound in enumerate(_BUCKETS):
                row[i] += seconds <= bound
            row[-2] += 1
            row[-1] += seconds

    def count(self, event: str) -> None:
        """Counts something that happened: a refusal, a client that left."""
        with self._lock:
            self._events[event] += 1

    def text(self, engine: Mapping[str, Any], search: Mapping[str, Any] | None = None) -> str:
        """All of it, with the engine's numbers as gauges, and those of searching, where there is any."""
        with self._lock:
            lines = ["# TYPE unclip_requests_total counter"]
            lines += [
                f'unclip_requests_total{{method="{method}",route="{route}",status="{status}"}} {count}'
                for (method, route, status), count in sorted(self._requests.items())
            ]
            lines += ["# TYPE unclip_request_seconds histogram"]
            for route, row in sorted(self._seconds.items()):
                bounds = [*map(str, _BUCKETS), "+Inf"]
                lines += [
                    f'unclip_request_seconds_bucket{{route="{route}",le="{bound}"}} {count:g}'
                    for bound, count in zip(bounds, row, strict=False)
                ]
                lines += [
                    f'unclip_request_seconds_count{{route="{route}"}} {row[-2]:g}',
                    f'unclip_request_seconds_sum{{route="{route}"}} {row[-1]:.6f}',
                ]
            lines += ["# TYPE unclip_events_total counter"]
            lines += [f'unclip_events_total{{event="{event}"}} {count}' for event, count in sorted(self._events.items())]
        for part, told in (("engine", engine), ("search", search or {})):
            for name, value in sorted(told.items()):
                if isinstance(value, int | float):
                    lines += [f"# TYPE unclip_{part}_{name} gauge", f"unclip_{part}_{name} {float(value):g}"]
        return "\n".join(lines) + "\n"
