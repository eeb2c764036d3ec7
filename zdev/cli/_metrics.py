"""What devices have done, for Prometheus; the one module that needs prometheus_client."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import zmq
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

import zdev
from zdev.cli._sampler import Sample

__all__ = ["exposition"]

DIRECTIONS = ("frontend_to_backend", "backend_to_frontend")

COUNTED = {
    "messages_received": ("zdev_messages_received", "Whole messages taken from the source", ""),
    "messages_sent": ("zdev_messages_sent", "Messages that the destination has accepted", ""),
    "frames_received": ("zdev_frames_received", "Frames of the messages received", ""),
    "frames_sent": ("zdev_frames_sent", "Frames of the messages sent", ""),
    "bytes_received": ("zdev_received_bytes", "Bytes in the frames received", "bytes"),
    "bytes_sent": ("zdev_sent_bytes", "Bytes in the frames sent", "bytes"),
    "dropped": (
        "zdev_messages_dropped",
        "Messages that could not be sent: the type of the destination cannot, its peer vanished "
        "between two frames, or memory was short",
        "",
    ),
    "unroutable": ("zdev_messages_unroutable", "Messages without a usable address", ""),
    "overflowed": (
        "zdev_messages_overflowed",
        "Messages discarded by overflow = drop, their destination being full or without a peer",
        "",
    ),
}
"""Of each direction."""

COPIED = {
    "sent": ("zdev_monitor_messages_sent", "Copies that the monitor has accepted"),
    "dropped": ("zdev_monitor_messages_dropped", "Copies that the monitor has not accepted"),
}

CAME = {
    "accepted": ("zdev_connections_accepted", "Connections that have come in"),
    "connected": ("zdev_connections_made", "Connections that this side has made"),
    "disconnected": ("zdev_peers_disconnected", "Peers that were there and have gone"),
    "retries": ("zdev_connection_retries", "Attempts to connect put off to be made again"),
}
"""Of each socket."""

CAUSES = ("protocol", "credentials", "refused", "broken off")
"""Of handshakes that fail; each has a series from the start, so that its first shows as a rate."""


def exposition(sample: Sample, accept: str) -> tuple[bytes, str]:
    """Return what is known, in the format that a client accepts, and the type of that."""
    registry = CollectorRegistry()
    registry.register(_Known(sample))
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type


def _label(text: str) -> str:
    """Return what can be encoded: a name given as an argument may hold bytes that are no text."""
    return text.encode("utf-8", "backslashreplace").decode()


class _Known(Collector):
    """The metrics of one sample."""

    def __init__(self, sample: Sample) -> None:
        self._problem = sample.problem
        self._devices = [(_label(device["name"]), device) for device in sample.devices]

    def collect(self) -> Iterator[Metric]:
        about = {"version": zdev.__version__, "libzmq": zmq.zmq_version(), "engine": zdev.engine}
        yield InfoMetricFamily("zdev", "What relays", value=about)
        failed = GaugeMetricFamily(
            "zdev_reload_failed", "1 if the configuration was wrong when it was last read, else 0"
        )
        failed.add_metric([], float(self._problem is not None))
        yield failed
        yield from self._lives()
        yield from self._directions()
        yield from self._monitors()
        yield from self._sockets()

    def _lives(self) -> Iterator[Metric]:
        up = GaugeMetricFamily(
            "zdev_device_up", "1 if the device relays and answers, else 0", labels=["device"]
        )
        restarts = CounterMetricFamily(
            "zdev_restarts", "How often the device was started again", labels=["device"]
        )
        for name, device in self._devices:
            up.add_metric([name], float(device["state"] == "relays"))
            restarts.add_metric([name], device["restarts"])
        yield up
        yield restarts

    def _directions(self) -> Iterator[Metric]:
        labels = ["device", "direction"]
        for key, (metric, words, unit) in COUNTED.items():
            counter = CounterMetricFamily(metric, words, labels=labels, unit=unit)
            for name, device in self._devices:
                for way in DIRECTIONS:
                    counter.add_metric([name, way], device["counts"][way][key])
            yield counter
        what = "messages that wait in the device for their destination"
        yield from self._parked("zdev_parked", what, labels, DIRECTIONS)

    def _monitors(self) -> Iterator[Metric]:
        for key, (metric, words) in COPIED.items():
            counter = CounterMetricFamily(metric, words, labels=["device"])
            for name, device in self._devices:
                if _has_monitor(device):
                    counter.add_metric([name], device["counts"]["capture"][key])
            yield counter
        what = "copies that wait in the device for its monitor"
        yield from self._parked("zdev_monitor_parked", what, ["device"], ("capture",))

    def _parked(
        self, metric: str, what: str, labels: list[str], ways: tuple[str, ...]
    ) -> Iterator[Metric]:
        now = GaugeMetricFamily(f"{metric}_messages", f"Number of {what}", labels=labels)
        seconds = GaugeMetricFamily(
            f"{metric}_seconds", f"Time so far of {what}", labels=labels, unit="seconds"
        )
        for name, device in self._devices:
            for way in ways:
                if way == "capture" and not _has_monitor(device):
                    continue
                values = [name, way] if len(labels) > 1 else [name]
                now.add_metric(values, device["counts"][way]["parked"])
                seconds.add_metric(values, device["counts"][way]["parked_seconds"])
        yield now
        yield seconds

    def _sockets(self) -> Iterator[Metric]:
        labels = ["device", "socket"]
        peers = GaugeMetricFamily("zdev_peers", "Peers that are connected", labels=labels)
        topics = GaugeMetricFamily(
            "zdev_subscriptions", "Topics that peers of an XPUB have subscribed to", labels=labels
        )
        for name, device in self._devices:
            for role in (role for role in device["types"] if role in device["connections"]):
                known = device["connections"][role]
                peers.add_metric([name, role], known["peers"])
                if known["subscriptions"] is not None:
                    topics.add_metric([name, role], known["subscriptions"])
        yield peers
        yield topics
        for key, (metric, words) in CAME.items():
            counter = CounterMetricFamily(metric, words, labels=labels)
            for name, role, came in self._came():
                counter.add_metric([name, role], came[key])
            yield counter
        failed = CounterMetricFamily(
            "zdev_handshakes_failed", "Handshakes that failed, by cause", labels=[*labels, "cause"]
        )
        for name, role, came in self._came():
            for cause in {**dict.fromkeys(CAUSES), **came["failed"]}:
                failed.add_metric([name, role, cause], came["failed"].get(cause, 0))
        yield failed

    def _came(self) -> Iterator[tuple[str, str, dict[str, Any]]]:
        for name, device in self._devices:
            for role, came in device["came"].items():
                if role in device["types"]:
                    yield name, role, came


def _has_monitor(device: dict[str, Any]) -> bool:
    return "mon" in device["types"]
