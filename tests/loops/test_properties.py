"""Properties of traffic through real sockets, on every engine, against the model.

Whatever peers send, in whatever order, and however little the sockets' queues hold: each message
arrives once, whole, at the right peer and in its sender's order; the capture got what was sent on;
and the counters say what was sent.
"""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import pytest
import zmq
from hypothesis import given

import zdev
from zdev.testing import DeviceHarness, prefixes, traffic
from zdev.testing.model import Type
from zdev.testing.strategies import PAIRS

from ..fuzzing import bursts, examples
from ..support import wait_until

# Seconds after which counting counts as stalled: few, since Hypothesis tries a failure many times.
STALLED = 5.0

HWMS = st.lists(st.sampled_from([0, 1, 2, 3, 10, 1000]), min_size=1, max_size=9)

ENDS = {"-".join(end.name for end in ends): traffic(*ends) for ends in PAIRS}
ENDS["ROUTER"] = traffic(Type.ROUTER, Type.ROUTER, single=True)


@pytest.mark.parametrize("ends", ENDS)
@given(
    data=st.data(),
    hwms=HWMS,
    mandatory=st.booleans(),
    capture=st.booleans(),
    policy=st.sampled_from(["block", "drop"]),
    overflow=st.sampled_from(["park", "drop"]),
    in_prefix=prefixes(),
    out_prefix=prefixes(),
    burst=bursts(),
)
@examples(12)
def test_traffic(
    engine: str,
    ends: str,
    data: Any,
    hwms: list[int],
    mandatory: bool,
    capture: bool,
    policy: Any,
    overflow: Any,
    in_prefix: Any,
    out_prefix: Any,
    burst: int,
) -> None:
    sent = data.draw(ENDS[ends], label="traffic")
    relays = []

    def device(*sockets: zmq.Socket[bytes]) -> None:
        copies: dict[str, Any] = {
            "in_prefix": in_prefix,
            "out_prefix": out_prefix,
            "capture_policy": policy,
        }
        settings = copies if capture else {}
        relays.append(zdev.Relay(*sockets, burst=burst, overflow=overflow, **settings))
        relays[0].run()

    with DeviceHarness(
        device,
        sent,
        capture=capture,
        prefixes=(in_prefix, out_prefix),
        swap=True,
        hwms=hwms if overflow == "park" else [0],  # nothing is refused, so nothing is dropped
        mandatory=mandatory,
        capture_gaps=policy == "drop",
    ) as harness:
        harness.check()
        *ways, copies = harness.model.statistics()
        # The last message of all may have come before it was counted, or its copy after it.
        wait_until(lambda: relays[0].statistics()[:2] == tuple(ways), STALLED)
        wait_until(lambda: sum(relays[0].statistics().capture) == sum(copies), STALLED)
        harness.receive_rest()
        counted = relays[0].statistics().capture
        captured = len(harness.inboxes["the capture"].received) if capture else 0
        assert counted == ((captured, sum(copies) - captured, 0) if policy == "drop" else copies)
        assert captured == counted.sent
