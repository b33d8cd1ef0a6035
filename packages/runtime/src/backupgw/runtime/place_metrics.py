"""What is done to the places, as metrics: the hook of the layer `observe`.

Calls and errors, seconds and bytes are counters, which several workers add up. Their quotients are
what a person looks at: seconds per call is the latency of a place, bytes per second its throughput.
"""

from __future__ import annotations

from backupgw.kvstore.layers.observe import Operation

from .metrics import counter

_LABELS = ("place", "operation")


def count_operation(operation: Operation) -> None:
    """Count an operation that ended."""
    labels = (operation.place, operation.kind)
    counter(
        "backupgw_place_operations_total",
        "Operations on a place that ended, by outcome: ok, or how they failed.",
        (*_LABELS, "outcome"),
    ).add(1, *labels, operation.outcome)
    counter(
        "backupgw_place_operation_seconds_total",
        "Seconds that a place took for its operations.",
        _LABELS,
    ).add(operation.seconds, *labels)
    if operation.bytes:
        counter(
            "backupgw_place_bytes_total", "Bytes read from a place or written to it.", _LABELS
        ).add(operation.bytes, *labels)
