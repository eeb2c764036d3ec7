"""The faults that `tests.mutate` seeds: what each must do to be worth a place is in its reason.

A pattern is as short as it can be and still be found once, or first behind the text `behind` and
in the same function, so that it outlives changes nearby and does not wander elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["MUTANTS", "Mutant"]


@dataclass(frozen=True)
class Mutant:
    """A fault: in this file, the old text becomes the new."""

    file: str
    why: str
    old: str
    new: str
    behind: str = ""


RELAY_C = "csrc/relay.c"
LOOP_C = "csrc/loop.c"
LOOP = "zdev/_engines/loop.py"
DIRECTIONS = "zdev/_engines/directions.py"
COMPILED = "zdev/_engines/compiled.py"
CTYPES = "zdev/_engines/via_ctypes.py"
RELAY = "zdev/_relay.py"
WAKEUP = "zdev/_wakeup.py"
BASE = "zdev/_devices/base.py"
PROCESS = "zdev/_devices/process.py"

# The functions of relay.c that a message may go through without the bookkeeping of the rest.
DELIVER = "\nshort_deliver ("
SHORT = "\nturn_short ("
COUNT = "\nshort_count ("

_KEEPS_GIL = """\
import ctypes

        run = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int)(
            int(ffi.cast("intptr_t", ffi.addressof(lib, "zdev_relay_run")))
        )
        return run(int(ffi.cast("intptr_t", self._relay)), timeout)"""

MUTANTS = [
    # Messages, in C
    Mutant(
        LOOP_C,
        "the swap is omitted",
        "zdev_frames_open (self, &direction->held, swap);",
        "zdev_frames_open (self, &direction->held, 0);",
    ),
    Mutant(
        RELAY_C,
        "the prefix is there twice",
        "|| frames_copy (self, copy, &direction->prefix);",
        "|| (frames_copy (self, copy, &direction->prefix) && frames_copy (self, copy, &direction->prefix));",
    ),
    Mutant(
        RELAY_C,
        "the copy of a short message has its body for a prefix",
        "msg_copy (slot++, &direction->prefix)",
        "msg_copy (slot++, first)",
        DELIVER,
    ),
    Mutant(
        RELAY_C,
        "the copy of a short message goes without its prefix",
        "if (direction->has_prefix) {",
        "if (slot += direction->has_prefix, 0) {",
        DELIVER,
    ),
    Mutant(
        RELAY_C,
        "the prefix of a short message's copy is a message of its own",
        "frame_send (self, slot, capture, FLAG_SNDMORE)",
        "frame_send (self, slot, capture, 0)",
        DELIVER,
    ),
    Mutant(
        RELAY_C,
        "the more flag is lost",
        "slot, to, left > 1 ? FLAG_SNDMORE : 0)",
        "slot, to, 0)",
        "\nzdev_frames_send (",
    ),
    Mutant(
        RELAY_C,
        "the more flag of a short message is lost",
        "frame_send (self, first + place, to, FLAG_SNDMORE)",
        "frame_send (self, first + place, to, 0)",
        DELIVER,
    ),
    Mutant(
        RELAY_C,
        "the last frame of a short message has the more flag",
        "frame_send (self, last, to, 0)",
        "frame_send (self, last, to, FLAG_SNDMORE)",
        DELIVER,
    ),
    Mutant(
        RELAY_C,
        "a message's next frame is taken for another message",
        "if (!self->zmq.msg_more (one))",
        "if (1)",
        SHORT,
    ),
    Mutant(
        RELAY_C,
        "a parked message is dropped, and counted",
        "case SEND_REFUSED:\n            return 0;",
        "case SEND_REFUSED:\n            return discard (self, direction, &counters->dropped);",
    ),
    Mutant(
        RELAY_C,
        "a parked message is dropped in silence",
        "case SEND_REFUSED:\n            return 0;",
        "case SEND_REFUSED:\n            zdev_frames_empty (self, &direction->held);"
        " direction->stage = STAGE_TAKING; return 1;",
    ),
    Mutant(
        RELAY_C,
        "a message lost to a dying peer is counted as sent",
        "case SEND_LOST:\n            return discard (self, direction, &counters->dropped);",
        "case SEND_LOST:\n            break;",
    ),
    Mutant(
        RELAY_C,
        "a PAIR's next peer gets the rest of a message",
        "if (to->type != TYPE_PAIR && !failed) {",
        "if (!failed) {",
    ),
    Mutant(
        RELAY_C,
        "the rest of a message is kept from a socket that waits for it",
        "if (to->type != TYPE_PAIR && !failed) {",
        "if (0) {",
    ),
    Mutant(
        RELAY_C,
        "what cannot be routed is counted as dropped",
        "return discard (self, direction, &counters->unroutable);",
        "return discard (self, direction, &counters->dropped);",
        "case SEND_UNROUTABLE:",
    ),
    Mutant(
        RELAY_C,
        "EHOSTUNREACH ends the relay",
        "if (error == EHOSTUNREACH || error == ZDEV_EFSM)",
        "if (error == ZDEV_EFSM)",
    ),
    Mutant(RELAY_C, "an empty address is one", "return address > 0;", "return 1;"),
    Mutant(
        RELAY_C,
        "a REP's reply that nobody asked for waits for the next request",
        "(error == ZDEV_EFSM && to->type != TYPE_REP)",
        "(error == ZDEV_EFSM)",
    ),
    Mutant(
        RELAY_C,
        "a REP whose request goes nowhere does not answer",
        "if (source->type == TYPE_REP) {",
        "if (0) {",
    ),
    Mutant(RELAY_C, "DONTWAIT is missing from a send", "flags |= FLAG_DONTWAIT;", ";"),
    Mutant(
        RELAY_C,
        "DONTWAIT is missing from a receive",
        "msg_recv (one, source, FLAG_DONTWAIT)",
        "msg_recv (one, source, 0)",
        SHORT,
    ),
    Mutant(
        RELAY_C, "EINTR escapes from a send", "if (error != EINTR)", "if (1)", "\nframe_insist ("
    ),
    Mutant(RELAY_C, "EINTR escapes from a receive", "if (rc != -EINTR)", "if (1)"),
    Mutant(
        LOOP_C,
        "EINTR escapes from a look at the events",
        "if (error != EINTR)\n            return -error;",
        "return -error;",
    ),
    Mutant(
        LOOP_C,
        "EINTR escapes from the wait",
        "return error == EINTR ? ZDEV_WOKEN : -error;",
        "return -error;",
    ),
    Mutant(
        RELAY_C,
        "ETERM is swallowed",
        "return rc == -EAGAIN || rc == -ZDEV_EFSM ? 0 : rc;",
        "return rc < 0 ? 0 : rc;",
    ),
    # The capture, in C
    Mutant(
        RELAY_C,
        "the capture gets what the destination has not accepted",
        "if (self->capture && !direction->copied)\n        copy_make (self, direction);",
        "if (self->capture && !direction->copied) {\n"
        "        copy_make (self, direction);\n"
        "        zdev_frames_send (self, &direction->copy, self->capture, 0); }",
    ),
    Mutant(
        RELAY_C,
        "capture_policy='drop' waits",
        "(rc == SEND_REFUSED && !self->capture_drop)",
        "rc == SEND_REFUSED",
    ),
    Mutant(
        RELAY_C,
        "a capture that fails ends the relay, under 'drop' too",
        "if (rc < 0 && self->capture_drop)",
        "if (0)",
    ),
    Mutant(
        RELAY_C,
        "frames of a dropped copy are not closed",
        "zdev_frames_empty (self, &direction->copy);",
        "frames_reset (self, &direction->copy);",
        "self->capture_dropped++;",
    ),
    Mutant(
        LOOP_C,
        "what an XPUB capture's peers send is not read",
        "self->capture->type == TYPE_XPUB",
        "0",
    ),
    Mutant(
        LOOP_C,
        "what is parked is not closed at the end",
        "zdev_frames_close (self, &self->direction[i].held);",
        "",
    ),
    Mutant(
        RELAY_C,
        "the frames behind the sixteenth are not closed",
        "chunk_close (self, next);",
        "",
    ),
    # Counters, in C
    Mutant(
        RELAY_C,
        "frames_received is off by one",
        "counters.frames_received += frames;",
        "counters.frames_received += frames + 1;",
        "\nenter (",
    ),
    Mutant(
        RELAY_C,
        "bytes_sent is off by one",
        "counters->bytes_sent += bytes;",
        "counters->bytes_sent += bytes - 1;",
        "\nconclude (",
    ),
    Mutant(
        RELAY_C,
        "messages_sent is off by one",
        "counters->messages_sent++;",
        ";",
        "\nconclude (",
    ),
    Mutant(
        RELAY_C,
        "messages_sent is off by one, of short messages",
        "counters->messages_sent += messages;",
        "counters->messages_sent += 2 * messages;",
        COUNT,
    ),
    Mutant(
        RELAY_C,
        "frames_sent is off by one, of short messages",
        "counters->frames_sent += frames;",
        "counters->frames_sent += frames - 1;",
        COUNT,
    ),
    Mutant(
        RELAY_C,
        "a second frame's bytes are not counted, of short messages",
        "bytes += (unsigned) rc;",
        ";",
        SHORT,
    ),
    Mutant(
        RELAY_C,
        "short messages received are not counted",
        "counters->messages_received += messages;",
        ";",
        COUNT,
    ),
    Mutant(
        RELAY_C,
        "short messages' bytes are not counted",
        "counters->bytes_received += bytes;",
        ";",
        COUNT,
    ),
    Mutant(
        RELAY_C,
        "capture_sent is off by one",
        "self->capture_sent++;",
        ";",
        "\ncopy_conclude (",
    ),
    Mutant(
        RELAY_C,
        "capture_sent is off by one, of short messages",
        "self->capture_sent++;",
        ";",
        DELIVER,
    ),
    Mutant(
        LOOP_C,
        "parked is not counted",
        "counters->parked = self->direction[i].stage == STAGE_HELD;",
        "counters->parked = 0;",
    ),
    # Turns and waiting, in C
    Mutant(
        RELAY_C,
        "a burst has one too many",
        "int left = self->burst - *moved;",
        "int left = self->burst - *moved + 1;",
        SHORT,
    ),
    Mutant(
        LOOP_C,
        "a busy loop ignores the wake-up",
        "if (self->since_look >= self->burst)",
        "if (0)",
    ),
    Mutant(
        LOOP_C,
        "control has to wait until the traffic is over",
        "for (int i = 0; i < MAX_COMMANDS && self->control",
        "for (int i = 0; moved == 0 && i < MAX_COMMANDS && self->control",
    ),
    Mutant(
        LOOP_C,
        "the wake-up descriptor is not polled",
        "item[0].fd = self->wakeup_fd;",
        "item[0].fd = -1;",
    ),
    Mutant(
        LOOP_C,
        "a paused relay spins",
        "i < self->directions && !self->paused; i++)",
        "i < self->directions; i++)",
        "\nis_read (",
    ),
    Mutant(
        LOOP_C,
        "a parked relay spins",
        "&&  self->direction[i].stage == STAGE_TAKING)",
        ")",
        "\nis_read (",
    ),
    Mutant(
        RELAY_C,
        "a doubtful direction spins",
        "direction->doubtful = shown && rc == 0 && direction->stage == stage;",
        "direction->doubtful = 0;",
    ),
    Mutant(
        LOOP_C,
        "a doubtful direction has no timer",
        "*timeout = DOUBT_TIMEOUT;",
        ";",
    ),
    Mutant(
        RELAY_C,
        "what was parked for a ROUTER's dead peer is never tried again",
        "if (!shown && socket->type != TYPE_ROUTER)",
        "if (!shown)",
    ),
    Mutant(
        RELAY_C,
        "a send may eat a wake-up: the destination stays settled",
        "to->settled = 0;",
        ";",
        "\nzdev_frames_send (",
    ),
    Mutant(
        RELAY_C, "a send may eat a wake-up, of short messages", "to->settled = 0;", ";", DELIVER
    ),
    Mutant(
        RELAY_C,
        "a copy's send may eat a wake-up, of short messages",
        "capture->settled = 0;",
        ";",
        DELIVER,
    ),
    Mutant(
        RELAY_C,
        "a source is not read again once what was parked is gone",
        "if (rc == 1)\n        direction->source->settled = 0;",
        "",
        "\nzdev_direction_retry (",
    ),
    Mutant(
        LOOP_C,
        "a receive may eat the wake-up of a parked message",
        "awaited->settled = 0;",
        ";",
    ),
    Mutant(
        LOOP_C,
        "RESUME does not look at what came meanwhile",
        "unsettle (self);",
        ";",
        "self->paused = 0;",
    ),
    # Control, in C
    Mutant(
        LOOP_C,
        "STATISTICS has another order",
        "now.in_out.frames_received, now.in_out.bytes_received,",
        "now.in_out.bytes_received, now.in_out.frames_received,",
    ),
    Mutant(
        LOOP_C,
        "STATISTICS has the sides the wrong way round",
        "now.out_in.frames_sent, now.out_in.bytes_sent,",
        "now.in_out.frames_sent, now.in_out.bytes_sent,",
    ),
    Mutant(
        LOOP_C,
        "TERMINATE is ignored in a pause",
        "self->terminated = 1;",
        "self->terminated = !self->paused;",
    ),
    Mutant(
        LOOP_C,
        "what is parked is not tried a last time",
        "rc = zdev_relay_flush (self);",
        "",
        "\nzdev_relay_run (",
    ),
    Mutant(LOOP_C, "an unknown request is not answered", "asked = type == TYPE_REP", "asked = 0"),
    # The engines
    Mutant(
        COMPILED,
        "the GIL is kept, by the C loop",
        "return int(lib.zdev_relay_run(self._relay, timeout))",
        _KEEPS_GIL,
    ),
    Mutant(
        CTYPES,
        "the GIL is kept by what may have to wait for it",
        'self.send = bind(dropping, "msg_send"',
        'self.send = bind(keeping_errno, "msg_send"',
    ),
    # The Python loop
    Mutant(DIRECTIONS, "the swap is omitted", "self.swap = swap", "self.swap = False"),
    Mutant(
        DIRECTIONS,
        "the prefix comes last",
        "[direction.prefix, *originals]",
        "[*originals, direction.prefix]",
    ),
    Mutant(
        DIRECTIONS,
        "the prefix is there twice",
        "[direction.prefix, *originals]",
        "[direction.prefix, direction.prefix, *originals]",
    ),
    Mutant(DIRECTIONS, "the more flag is lost", "SNDMORE if place < last else 0", "0"),
    Mutant(
        DIRECTIONS,
        "a parked message is dropped",
        "if result == REFUSED:\n            return 0",
        "if result == REFUSED:\n            direction.dropped += 1\n"
        "            return self._discard(direction)",
    ),
    Mutant(
        DIRECTIONS,
        "a PAIR's next peer gets the rest of a message",
        "or (result == LOST and to.type == PAIR)",
        "",
    ),
    Mutant(
        DIRECTIONS,
        "EINTR escapes from a receive",
        "if error != EINTR:",
        "if True:",
        "def _take(",
    ),
    Mutant(
        DIRECTIONS, "EINTR escapes from a send", "if error != EINTR:", "if True:", "def _insist("
    ),
    Mutant(
        DIRECTIONS,
        "DONTWAIT is missing from a send",
        "flags | DONTWAIT",
        "flags",
        "def _send_frame(",
    ),
    Mutant(
        DIRECTIONS,
        "frames_received is off by one",
        "frames_received += len(direction.held.list)",
        "frames_received += len(direction.held.list) - 1",
    ),
    Mutant(
        DIRECTIONS,
        "a frame's bytes are not counted",
        "frames.bytes += size",
        "frames.bytes = size",
    ),
    Mutant(
        DIRECTIONS,
        "what cannot be routed is counted as dropped",
        "direction.unroutable += 1",
        "direction.dropped += 1",
        "if result == UNROUTABLE:",
    ),
    Mutant(
        DIRECTIONS,
        "capture_policy='drop' waits",
        "(result == REFUSED and not self._capture_drop)",
        "result == REFUSED",
    ),
    Mutant(
        DIRECTIONS,
        "frames of a message that goes nowhere are not released",
        "self._empty(direction.held)",
        "self._forget(direction.held)",
        "def _discard(",
    ),
    Mutant(
        DIRECTIONS,
        "a REP whose request goes nowhere does not answer",
        "if source.type == REP:",
        "if False:",
        "def _discard(",
    ),
    Mutant(DIRECTIONS, "a burst has one too many", "moved < self._burst", "moved <= self._burst"),
    Mutant(
        LOOP,
        "a busy loop ignores the wake-up",
        "if self._since_look >= self._burst:",
        "if False:",
    ),
    Mutant(DIRECTIONS, "a send may eat a wake-up", "to.settled = False", "pass", "def _send("),
    Mutant(
        LOOP,
        "the wake-up descriptor is not polled",
        "fds = [self._wakeup_fd]",
        "fds: list[int] = []",
    ),
    Mutant(LOOP, "a paused relay spins", "not self._paused", "True", "def _is_read("),
    Mutant(
        DIRECTIONS,
        "a doubtful direction spins",
        "direction.doubtful = shown and",
        "direction.doubtful = False and",
    ),
    Mutant(
        LOOP,
        "TERMINATE is ignored in a pause",
        "self._terminated = True",
        "self._terminated = not self._paused",
    ),
    Mutant(
        LOOP,
        "STATISTICS has another order",
        "(there.frames_received, there.bytes_received)",
        "(there.bytes_received, there.frames_received)",
    ),
    # The Python loop's short way
    Mutant(
        DIRECTIONS,
        "the swap of a short message is omitted",
        "if swap else self.frames",
        "if False else self.frames",
    ),
    Mutant(
        DIRECTIONS, "the more flag of a short message is lost", "DONTWAIT | SNDMORE", "DONTWAIT"
    ),
    Mutant(
        DIRECTIONS,
        "the prefix of a short message is missing",
        "[] if prefix is None else [prefix]",
        "[]",
    ),
    Mutant(
        DIRECTIONS,
        "a short message's address is not looked at",
        "not (two if swap else one)",
        "False",
    ),
    Mutant(
        DIRECTIONS, "of two addresses, the wrong one is looked at", "two if swap else one", "one"
    ),
    Mutant(
        DIRECTIONS,
        "a short message goes to a ROUTER without an address",
        "count < 2 or (router",
        "(router",
    ),
    Mutant(
        DIRECTIONS,
        "short messages are received twice",
        "_received += messages",
        "_received += 2 * messages",
    ),
    Mutant(DIRECTIONS, "a short message's bytes are not counted", "all_bytes += size", "pass"),
    Mutant(
        DIRECTIONS,
        "a short copy is not counted",
        "self._capture_sent += 1",
        "pass",
        "def _turn_short(",
    ),
    Mutant(
        DIRECTIONS,
        "a short send may eat a wake-up",
        "to.settled = False",
        "pass",
        "def _turn_short(",
    ),
    Mutant(DIRECTIONS, "a short message is as long as it likes", " or count == MAX_SHORT", ""),
    Mutant(
        DIRECTIONS,
        "a short message begins within another",
        "not direction.held.list and",
        "True and",
    ),
    Mutant(DIRECTIONS, "a lane's messages are used elsewhere", "and not frames.lent", ""),
    Mutant(
        DIRECTIONS,
        "a parked copy of a short message is forgotten",
        "direction.stage = COPY",
        "pass",
        "def _leave_copy(",
    ),
    Mutant(
        DIRECTIONS,
        "the copy of a parked short message is made twice",
        "direction.copied = True",
        "pass",
        "def _lend_copy(",
    ),
    # Relays and devices
    Mutant(
        RELAY,
        "signal handlers wait until the relay has ended",
        "signals.deliver()",
        "pass",
        "def _attend(",
    ),
    Mutant(
        RELAY,
        "stop() does not wake the relay",
        "self._wakeup.wake()",
        "pass",
        "self._stops.append(at)",
    ),
    Mutant(
        RELAY,
        "stop() does not try what is parked a last time",
        "raise_for(self._loop.flush())",
        "pass",
    ),
    Mutant(RELAY, "a stop ends the next run too", "del self._stops[:count]", "pass"),
    Mutant(
        RELAY,
        "a drain leaves the pause as it is",
        "self._loop.paused = False  # a drain ends a pause",
        "pass",
    ),
    Mutant(RELAY, "a drain does not end before its time", "and not parked and now >=", "and now <"),
    Mutant(RELAY, "two relays may use one socket", "is not self:", "is None:", "def _claim("),
    Mutant(
        RELAY,
        "two ROUTER sockets are not swapped between by default",
        "swap = ends[front].type == ends[back].type == zmq.ROUTER",
        "swap = False",
    ),
    Mutant(RELAY, "a call does not get its result", "future.set_result(result)", "pass"),
    Mutant(
        WAKEUP,
        "set_wakeup_fd is not put back",
        "signal.set_wakeup_fd(-1)",
        "pass",
        "def _restore(",
    ),
    Mutant(
        BASE,
        "what was unbound is still among the endpoints",
        "bound.remove(pair)",
        "pass",
    ),
    Mutant(BASE, "a device's sockets are not closed", "target.close()", "pass", "def _close_sock"),
    Mutant(BASE, "a device's error is not kept", "self.exception = error", "pass", "def _fail("),
    Mutant(
        BASE,
        "a live edit is not for the next start",
        "with contextlib.suppress(zmq.ZMQError), self._planning(role):\n            plan()",
        "pass",
    ),
    Mutant(
        PROCESS,
        "an orphan lives on",
        "os._exit(1)",
        "pass",
        "def _obey(",
    ),
    Mutant(
        PROCESS,
        "the parent does not close its end of a process's link",
        "link.close()",
        "pass",
        "if error is not None:\n                self._fail(error)",
    ),
]
