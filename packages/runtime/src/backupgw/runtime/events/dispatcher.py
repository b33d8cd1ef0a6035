"""From whoever publishes to whoever listens, without the one ever waiting for the other.

`Events.publish` puts a record into a queue and returns; one thread hands what is queued, in order,
to the sinks. The queue is bounded. When it is full, the event being published is dropped and
counted in `backupgw_events_dropped_total`; the last tenth of the queue is kept for warnings and
errors, so a flood of snapshots cannot push out the news of damage. A sink that raises is logged
and counted, and harms no other sink; a sink whose work can be slow keeps a bounded queue of its own
(`hooks`).
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Sequence
from typing import Protocol

from .records import Event, Message, Severity, message, this_gateway

logger = logging.getLogger(__name__)

QUEUE = 10_000
"""Events that may wait for the dispatcher's thread, unless the settings say otherwise."""
BATCH = 256
"""Events handed to a sink at once, at most."""
COMPLAIN_EVERY = 60.0
"""Seconds between two log records about the same failing sink, or about drops."""


class Sink(Protocol):
    """Somewhere that events go."""

    name: str

    def take(self, messages: Sequence[Message]) -> None:
        """Take over events, in order; called by one thread. Returns soon: within milliseconds."""

    def close(self, timeout: float) -> None:
        """End what the sink runs, within `timeout` seconds; called once, after the last take."""


class _Complaints:
    """Lets through one complaint a minute about each subject."""

    def __init__(self) -> None:
        self._last: dict[str, float] = {}

    def due(self, subject: str) -> bool:
        now = time.monotonic()
        if now - self._last.get(subject, -COMPLAIN_EVERY) < COMPLAIN_EVERY:
            return False
        self._last[subject] = now
        return True


class Events:
    """Takes events and hands them to sinks. A context manager that starts and closes it."""

    def __init__(
        self, sinks: Sequence[Sink] = (), *, queue_size: int = QUEUE, gateway: str = ""
    ) -> None:
        """Describe a dispatcher; `start` runs it. What is published before waits in the queue.

        Args:
            sinks: told of every event, in this order.
            queue_size: events that may wait; several threads publishing in the same instant may
                pass it by one each.
            gateway: what the gateway is called in events; default the machine's name.
        """
        # Imported late: whoever serves nothing needs no prometheus_client.
        from backupgw.runtime import metrics

        self._sinks = tuple(sinks)
        self._handing_over = threading.Lock()
        self._gateway = gateway or this_gateway()
        # SimpleQueue: its put neither waits nor fails, in a signal's handler neither.
        self._queue: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
        self._size = queue_size
        self._size_for_news = queue_size - queue_size // 10
        self._closed = False
        self._close_once = threading.Lock()
        self._thread: threading.Thread | None = None
        self._complaints = _Complaints()
        self._published = metrics.counter(
            "backupgw_events_total", "Events handed to the sinks.", ("type",)
        )
        self._dropped = metrics.counter(
            "backupgw_events_dropped_total",
            "Events lost: full (the queue was), closed (the gateway was stopping), "
            "invalid (a field that JSON cannot hold).",
            ("type", "reason"),
        )
        self._failed = metrics.counter(
            "backupgw_events_sink_failures_total", "Batches of events a sink failed at.", ("sink",)
        )

    def publish(self, event: Event) -> bool:
        """Tell everybody of `event`; from any thread, or the event loop.

        Returns:
            Whether it was queued. False is counted already; no caller needs to look.
        """
        if self._closed:
            return self._drop(event, "closed")
        urgent = event.weight is not Severity.INFO
        if self._queue.qsize() >= (self._size if urgent else self._size_for_news):
            return self._drop(event, "full")
        try:
            stamped = message(event, self._gateway)
        except (TypeError, ValueError):
            logger.exception("an event of type %s cannot be told", event.type)
            return self._drop(event, "invalid")
        self._queue.put(stamped)
        return True

    @property
    def closed(self) -> bool:
        """Whether nothing is taken any more."""
        return self._closed

    def start(self) -> None:
        """Start the dispatcher's thread."""
        if self._thread is None and not self._closed:
            # A daemon: a sink that hangs must not keep the process from ending.
            self._thread = threading.Thread(target=self._run, name="events", daemon=True)
            self._thread.start()

    def exchange(self, name: str, sink: Sink | None, timeout: float = 10.0) -> None:
        """Tell `sink` from now on instead of the one of that name, which is closed; each event goes
        to one of the two. None: nobody takes its place.

        Args:
            timeout: seconds that the old one has to end what it runs.
        """
        with self._close_once:
            if self._closed:
                if sink is not None:
                    sink.close(timeout)
                return
            with self._handing_over:
                old = [each for each in self._sinks if each.name == name]
                kept = [each for each in self._sinks if each.name != name]
                self._sinks = (*kept, sink) if sink is not None else tuple(kept)
        self._close_sinks(old, timeout)

    def close(self, timeout: float = 10.0) -> None:
        """Hand over what is queued, then close the sinks; about `timeout` seconds at most.

        What is published from now on is dropped. Idempotent.
        """
        with self._close_once:
            if self._closed:
                return
            self._closed = True
        deadline = time.monotonic() + timeout
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join(timeout)
            if self._thread.is_alive():
                logger.error(
                    "events: a sink did not come back for %.0f s; about %d events are lost",
                    timeout,
                    self._queue.qsize(),
                )
        self._close_sinks(self._sinks, deadline - time.monotonic())

    def _close_sinks(self, sinks: Sequence[Sink], timeout: float) -> None:
        deadline = time.monotonic() + timeout
        for sink in sinks:
            try:
                sink.close(max(0.1, deadline - time.monotonic()))
            except Exception:  # a sink is anybody's code, and the others are to be closed as well
                logger.exception("events: closing the sink %s failed", sink.name)

    def __enter__(self) -> Events:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _drop(self, event: Event, reason: str) -> bool:
        self._dropped.add(1, event.type, reason)
        if reason == "full" and self._complaints.due("full"):
            logger.warning("events: the queue of %d is full, events are dropped", self._size)
        return False

    def _run(self) -> None:
        while True:
            first = self._queue.get()
            if first is None:
                return
            batch = [first]
            ending = False
            while len(batch) < BATCH and not self._queue.empty():
                # This thread alone takes out: what is there stays there.
                following = self._queue.get()
                if following is None:
                    ending = True
                    break
                batch.append(following)
            self._hand_over(batch)
            if ending:
                return

    def _hand_over(self, batch: Sequence[Message]) -> None:
        for stamped in batch:
            self._published.add(1, stamped.event.type)
        with self._handing_over:
            for sink in self._sinks:
                try:
                    sink.take(batch)
                except Exception:  # a sink is anybody's code; the others and later events go on
                    self._failed.add(1, sink.name)
                    if self._complaints.due(sink.name):
                        logger.exception("events: the sink %s failed", sink.name)
