"""Uses of the devices that type-check, and, with an ignore, those that must not."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import zmq
import zmq.devices

import zdev

if TYPE_CHECKING:
    from typing_extensions import assert_type


def constructors() -> None:
    zdev.Device(zmq.QUEUE, zmq.PULL, zmq.PUSH, name="queue")
    zdev.ThreadDevice(device_type=zmq.STREAMER, in_type=zmq.PULL, out_type=-1)
    zdev.ProcessDevice(in_type=zmq.PULL, out_type=zmq.PUSH)
    zdev.ThreadProxy(zmq.XSUB, zmq.XPUB, zmq.PUSH, name=None)
    zdev.ProcessProxySteerable(zmq.PULL, zmq.PUSH, ctrl_type=zmq.REP)
    zdev.ThreadProxySteerable(zmq.PULL, zmq.PUSH, zmq.PUB, None)
    zdev.ProcessMonitoredQueue(zmq.PULL, zmq.PUSH, zmq.PUB, "in", b"out")
    zdev.MonitoredQueue(zmq.PULL, zmq.PUSH, in_prefix=memoryview(b"in"), out_prefix=None)
    zdev.ThreadDevice(zmq.QUEUE, zmq.PULL, zmq.PUSH, burst=8, warn_after=None)
    zdev.ProcessProxy(zmq.PULL, zmq.PUSH, capture_policy="drop", warn_after=0.5)
    zdev.ThreadProxy(zmq.PULL, zmq.PUSH, capture_policy="lossless")  # type: ignore[arg-type]
    zdev.ThreadProxy(zmq.PULL, zmq.PUSH, bursts=5)  # type: ignore[call-arg]
    zdev.ThreadProxy(zmq.XSUB)  # type: ignore[call-arg]
    zdev.ThreadProxy("XSUB", "xpub", mon_type="PUSH")
    zdev.ThreadProxy(b"XSUB", zmq.XPUB)  # type: ignore[arg-type]
    zdev.ThreadProxy(zmq.XSUB, zmq.XPUB, zmq.PUB, "a name")  # type: ignore[call-arg]
    zdev.ThreadMonitoredQueue(zmq.PULL, zmq.PUSH, zmq.PUB, 5)  # type: ignore[arg-type]
    zdev.ThreadDevice(zmq.QUEUE, zmq.PULL, zmq.PUSH, mon_type=zmq.PUB)  # type: ignore[call-arg]


def kinds() -> None:
    device: zdev.Device = zdev.ThreadMonitoredQueue(zmq.PULL, zmq.PUSH)
    theirs: zmq.devices.ThreadMonitoredQueue = zdev.ThreadMonitoredQueue(zmq.PULL, zmq.PUSH)
    proxy: zdev.ThreadProxy = zdev.ThreadMonitoredQueue(zmq.PULL, zmq.PUSH)
    wrong: zdev.ProcessProxy = zdev.ThreadProxy(zmq.PULL, zmq.PUSH)  # type: ignore[assignment]
    print(device, theirs, proxy, wrong)


def configuration(device: zdev.ThreadProxySteerable) -> None:
    device.bind_in("tcp://*:*")
    device.connect_out(addr="tcp://127.0.0.1:1")
    device.unbind_mon("tcp://*:*")
    device.disconnect_ctrl("tcp://127.0.0.1:1")
    device.setsockopt_in(zmq.ROUTING_ID, "id")
    device.setsockopt_in("sndhwm", 5)
    device.setsockopt_out(opt=zmq.LINGER, value=0)
    assert_type(device.bind_in_to_random_port("tcp://*"), int)
    assert_type(device.bind_ctrl_to_random_port("tcp://*", min_port=1, max_port=2), int)
    assert_type(device.endpoints, "dict[str, list[str]]")
    device.curve_server_in("broker.key_secret")
    device.curve_client_out((b"public", "secret"), server_key="server")
    device.curve_server_in(5)  # type: ignore[arg-type]
    device.curve_client_out("broker.key_secret")  # type: ignore[call-arg]
    device.plain_server_in({"name": "password"})
    device.plain_client_out("name", password="password")
    device.plain_server_in(["name"])  # type: ignore[arg-type]
    device.allow_in("keys")
    device.allow_in([b"key", "key"])
    device.allow_in({"name": "password"})
    device.allow_in(5)  # type: ignore[arg-type]
    device.bind_in(5555)  # type: ignore[arg-type]
    device.bind_in()  # type: ignore[call-arg]
    device.connect_in("tcp://a:1", "tcp://b:1")  # type: ignore[arg-type,call-arg]
    device.connect_in("tcp://a:1", resolve="all", every=0.5)
    device.connect_in("tcp://a:1", resolve="every")  # type: ignore[arg-type]
    device.bind_in("tcp://a:1", resolve="all")  # type: ignore[call-arg]
    device.setsockopt_in(zmq.LINGER)  # type: ignore[call-arg]
    device.endpoints = {}  # type: ignore[misc]


def no_such_role(device: zdev.ThreadDevice, proxy: zdev.ThreadProxy) -> None:
    device.bind_mon("tcp://*:*")  # type: ignore[attr-defined]
    proxy.bind_ctrl("tcp://*:*")  # type: ignore[attr-defined]


def life(device: zdev.ProcessMonitoredQueue) -> None:
    device.start()
    device.pause()
    device.resume()
    assert_type(device.statistics(), zdev.Statistics)
    report = device.stop(drain=1.5, timeout=2, quiet=0.5)
    assert_type(report, "zdev.StopReport | None")
    assert_type(device.last_stop, "zdev.StopReport | None")
    if report is not None:
        assert_type(report.drained, bool)
        assert_type(report.unanswered + report.parked, int)
        assert_type(report.unread, "bool | None")
    device.join()
    device.join(timeout=1.5)
    assert_type(device.done, bool)
    assert_type(device.exception, "BaseException | None")
    assert_type(device.name, str)
    device.daemon = False
    with device as running:
        assert_type(running, zdev.ProcessMonitoredQueue)
    device.stop(drain="1")  # type: ignore[arg-type]
    device.join("1")  # type: ignore[arg-type]
    device.daemon = "yes"  # type: ignore[assignment]


class Mine(zdev.ThreadProxy):
    """What subclasses of pyzmq's classes replace and use."""

    context_factory = zmq.Context
    _launch_class = threading.Thread

    def _setup_sockets(self) -> Any:
        ins, outs, mons = super()._setup_sockets()
        self._sockets.append(self._context.socket(zmq.PUB))
        self._in_binds.append("tcp://*:*")
        return ins, outs, mons

    def run_device(self) -> None:
        zdev.proxy(*self._setup_sockets())

    def run(self) -> None:
        super().run()


def in_and_out() -> None:
    zdev.install()
    zdev.uninstall()
    zdev.install(True)  # type: ignore[call-arg]


def errors() -> None:
    try:
        zdev.ThreadProxy(zmq.XSUB, zmq.XPUB).start()
    except zdev.BindError as error:
        assert_type(error.errno, "int | None")
        both: zmq.ZMQError = error
        bind: zmq.ZMQBindError = error
        print(both, bind)
