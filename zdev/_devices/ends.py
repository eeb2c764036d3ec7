"""The methods of devices that wire their two ends; `kinds` has those of the other sockets."""

from __future__ import annotations

from .methods import SetsOption, on, option_on, planned, random_port_on
from .plan import SocketPlan
from .watched import Watched

__all__ = ["Ends"]


class Ends(Watched):
    """What has the sockets ``in`` and ``out``."""

    bind_in = on("in", SocketPlan.bind)
    connect_in = on("in", SocketPlan.connect)
    unbind_in = on("in", SocketPlan.unbind)
    disconnect_in = on("in", SocketPlan.disconnect)
    setsockopt_in: SetsOption = option_on("in")
    bind_in_to_random_port = random_port_on("in")
    curve_server_in = on("in", SocketPlan.curve_server)
    curve_client_in = on("in", SocketPlan.curve_client)
    plain_server_in = on("in", SocketPlan.plain_server)
    plain_client_in = on("in", SocketPlan.plain_client)
    allow_in = on("in", SocketPlan.allow)

    bind_out = on("out", SocketPlan.bind)
    connect_out = on("out", SocketPlan.connect)
    unbind_out = on("out", SocketPlan.unbind)
    disconnect_out = on("out", SocketPlan.disconnect)
    setsockopt_out: SetsOption = option_on("out")
    bind_out_to_random_port = random_port_on("out")
    curve_server_out = on("out", SocketPlan.curve_server)
    curve_client_out = on("out", SocketPlan.curve_client)
    plain_server_out = on("out", SocketPlan.plain_server)
    plain_client_out = on("out", SocketPlan.plain_client)
    allow_out = on("out", SocketPlan.allow)

    _in_binds = planned("in", "binds")
    _in_connects = planned("in", "connects")
    _in_sockopts = planned("in", "sockopts")
    _out_binds = planned("out", "binds")
    _out_connects = planned("out", "connects")
    _out_sockopts = planned("out", "sockopts")
