"""zdev.aio in programs that gevent has patched: its event loop is another than the hub."""

from __future__ import annotations

from pathlib import Path

import pytest

from ..gevent_programs import Patches, each_way, needs_gevent, printed

PROGRAM = """
import asyncio
from zdev import aio

async def main():
    device = aio.Proxy(zmq.PULL, zmq.PUSH, in_process=in_process)
    device.bind_in("tcp://127.0.0.1:*")
    async with device:
        await device.pause()
        await device.resume()
    assert device.done
    context = zmq.Context()
    with context.socket(zmq.PULL) as frontend, context.socket(zmq.PUSH) as backend:
        frontend.bind("inproc://frontend")
        with context.socket(zmq.PUSH) as source:
            source.connect("inproc://frontend")
            source.send(b"taken")
            relaying = asyncio.create_task(aio.proxy(frontend, backend))
            await asyncio.sleep(0.05)
            relaying.cancel()
            done, _ = await asyncio.wait([relaying], timeout=5)
            assert done, "it goes on"
            frontend.getsockopt(zmq.EVENTS)
    context.term()

import logging
logging.disable(logging.WARNING)
asyncio.run(main())
"""


@needs_gevent
@pytest.mark.parametrize("in_process", [False, True])
@each_way
def test_its_devices_and_functions(
    tmp_path: Path, patches: Patches, first: bool, in_process: bool
) -> None:
    assert printed(tmp_path, PROGRAM, patches, first, in_process=in_process) == ""
