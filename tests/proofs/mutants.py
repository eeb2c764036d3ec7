"""The faults that `tests.proofs.mutate` seeds: what each must do to be worth a place is in its reason.

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


INTERNAL_H = "csrc/internal.h"
FRAMES_C = "csrc/frames.c"
DIRECTION_C = "csrc/direction.c"
TURN_C = "csrc/turn.c"
LOOP_C = "csrc/loop.c"
LIFE_C = "csrc/life.c"
FRAMES = "zdev/_engines/frames.py"
DIRECTION = "zdev/_engines/direction.py"
TURN = "zdev/_engines/turn.py"
LOOP = "zdev/_engines/loop.py"
COMPILED = "zdev/_engines/compiled.py"
CTYPES = "zdev/_engines/via_ctypes.py"
RELAY = "zdev/_relay.py"
ASKED = "zdev/_asked.py"
DESCRIPTOR = "zdev/_descriptor.py"
WAKEUP = "zdev/_wakeup.py"
OVERFLOW = "zdev/_overflow.py"
WAITS = "zdev/_waits.py"
SETTINGS = "zdev/_devices/settings.py"
SOCKETS = "zdev/_sockets.py"
CALLS = "zdev/_calls.py"
TASKS = "zdev/_tasks.py"
THREADS = "zdev/_threads.py"
ASIDE = "zdev/_aside.py"
PORTS = "zdev/_devices/ports.py"
ENGINES = "zdev/_engines/__init__.py"
SIGNALS = "zdev/_signals.py"
STOPS = "zdev/_stops.py"
TIMES = "zdev/_times.py"
WIRING = "zdev/_devices/wiring.py"
METHODS = "zdev/_devices/methods.py"
ADDRESSES = "zdev/_devices/addresses.py"
TYPES = "zdev/_devices/types.py"
PROGRESS = "zdev/_devices/progress.py"
CONNECTIONS = "zdev/_connections.py"
ZAP = "zdev/_zap.py"
SECRETS = "zdev/_secrets.py"
CERTIFICATES = "zdev/_certificates.py"
SECURITY = "zdev/_devices/security.py"
OPTIONS = "zdev/_devices/options.py"
PLAN = "zdev/_devices/plan.py"
RUN = "zdev/_devices/run.py"
CONNECTS = "zdev/_devices/connects.py"
RESOLVING = "zdev/_devices/resolving.py"
FORK = "zdev/_devices/fork.py"
CHILD = "zdev/_devices/child.py"
PROCESS = "zdev/_devices/process.py"
LINK = "zdev/_devices/link.py"
HEEDED = "zdev/_devices/signals.py"
STAGES = "zdev/_devices/stages.py"
STEERING = "zdev/cli/_steering.py"
VALUES = "zdev/cli/_values.py"
FILE = "zdev/cli/_file.py"
BROKERS = "zdev/cli/_brokers.py"
OUTPUT = "zdev/cli/_output.py"
TAP = "zdev/cli/tap.py"
TAP_FRAMES = "zdev/cli/tap_frames.py"
TAP_CONNECTION = "zdev/cli/tap_connection.py"
AIO_LIBRARIES = "zdev/aio/_libraries.py"
AIO_THREADS = "zdev/aio/_threads.py"
AIO_LIFE = "zdev/aio/_life.py"
AIO_WATCHING = "zdev/aio/_watching.py"
AIO_FUNCTIONS = "zdev/aio/_functions.py"

# The functions of turn.c that a message may go through without the bookkeeping of the rest.
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
        LIFE_C,
        "the swap is omitted",
        "zdev_frames_open (self, &direction->held, swap);",
        "zdev_frames_open (self, &direction->held, 0);",
    ),
    Mutant(
        DIRECTION_C,
        "the prefix is there twice",
        "|| zdev_frames_copy (self, copy, &direction->prefix);",
        "|| (zdev_frames_copy (self, copy, &direction->prefix)"
        " && zdev_frames_copy (self, copy, &direction->prefix));",
    ),
    Mutant(
        TURN_C,
        "the copy of a short message has its body for a prefix",
        "msg_copy (slot++, &direction->prefix)",
        "msg_copy (slot++, first)",
        DELIVER,
    ),
    Mutant(
        TURN_C,
        "the copy of a short message goes without its prefix",
        "if (direction->has_prefix) {",
        "if (slot += direction->has_prefix, 0) {",
        DELIVER,
    ),
    Mutant(
        TURN_C,
        "the prefix of a short message's copy is a message of its own",
        "frame_send (self, slot, capture, FLAG_SNDMORE)",
        "frame_send (self, slot, capture, 0)",
        DELIVER,
    ),
    Mutant(
        FRAMES_C,
        "the more flag is lost",
        "slot, to, left > 1 ? FLAG_SNDMORE : 0)",
        "slot, to, 0)",
        "\nzdev_frames_send (",
    ),
    Mutant(
        TURN_C,
        "the more flag of a short message is lost",
        "frame_send (self, first + place, to, FLAG_SNDMORE)",
        "frame_send (self, first + place, to, 0)",
        DELIVER,
    ),
    Mutant(
        TURN_C,
        "the last frame of a short message has the more flag",
        "frame_send (self, last, to, 0)",
        "frame_send (self, last, to, FLAG_SNDMORE)",
        DELIVER,
    ),
    Mutant(
        TURN_C,
        "a message's next frame is taken for another message",
        "if (!self->zmq.msg_more (one))",
        "if (1)",
        SHORT,
    ),
    Mutant(
        DIRECTION_C,
        "a parked message is dropped, and counted",
        "case SEND_REFUSED:\n            return 0;",
        "case SEND_REFUSED:\n"
        "            return discard (self, direction, &outcome->dropped, frames, bytes);",
    ),
    Mutant(
        DIRECTION_C,
        "what is refused is dropped where it should wait",
        "if (rc == SEND_REFUSED && direction->drop)",
        "if (rc == SEND_REFUSED)",
    ),
    Mutant(
        DIRECTION_C,
        "a peer that keeps pace loses messages",
        "int events = zdev_socket_events (self, direction->destination);",
        "int events = 0;",
    ),
    Mutant(
        DIRECTION_C,
        "what overflows is counted as dropped",
        "&outcome->overflowed, frames,",
        "&outcome->dropped, frames,",
    ),
    Mutant(
        LIFE_C,
        "in_overflow means the way back",
        "settings->in_drop",
        "settings->out_drop",
    ),
    Mutant(
        LOOP_C,
        "nobody is told that messages overflow",
        "rounds >= BOUNDED_ROUNDS : self->news",
        "rounds >= BOUNDED_ROUNDS : 0",
    ),
    Mutant(
        LOOP_C,
        "a relay wakes its owner for ever, once a message has overflowed",
        "self->news = 0;",
        ";",
    ),
    Mutant(
        DIRECTION_C,
        "a long wait that is over is not told of",
        "self->news |= direction->long_wait;",
        "",
    ),
    Mutant(
        DIRECTION_C,
        "a long wait is told of again and again",
        "!direction->long_wait\n",
        "1\n",
    ),
    Mutant(
        LOOP_C,
        "a relay that has parked something does not wake up to tell of it",
        "self->long_wait && !direction->long_wait ? self->long_wait : -1",
        "-1",
    ),
    Mutant(
        LOOP_C,
        "a relay that has told of a wait wakes up again and again",
        "self->long_wait && !direction->long_wait ?",
        "self->long_wait ?",
    ),
    Mutant(
        LIFE_C,
        "a monitor without an address gets copies",
        "self->capture = wanted ? self->capture_given : NULL;",
        "(void) wanted;",
    ),
    Mutant(
        LOOP_C,
        "a monitor without an address ends the device when it fails, under 'drop' too",
        "socket != self->capture_given ||",
        "socket != self->capture ||",
    ),
    Mutant(
        LOOP,
        "a monitor without an address ends the device when it fails, under 'drop' too",
        "socket is not self._capture.given or",
        "socket is not self._capture.socket or",
    ),
    Mutant(
        DIRECTION_C,
        "data is dropped although only a first frame can subscribe",
        "self->only_first && !subscribes",
        "0 && !subscribes",
    ),
    Mutant(
        FRAMES_C,
        "a cancellation of what nobody has subscribed to makes a huge count",
        "*data == 0 && source->subscriptions > 0",
        "*data == 0",
    ),
    Mutant(
        FRAMES_C,
        "data behind data counts as a subscription, where it is none",
        "(self->only_first && frames->count > 1)",
        "0",
    ),
    Mutant(
        FRAMES,
        "a subscription behind data does not count",
        "if only_first and frames.count > 1:",
        "if frames.count > 1:",
    ),
    Mutant(
        LIFE_C,
        "subscriptions that take the short way are not counted",
        "destination && source->type != TYPE_XPUB",
        "destination != NULL",
    ),
    Mutant(
        TURN,
        "subscriptions that take the short way are not counted",
        "if self.source.type == XPUB:",
        "if False:",
    ),
    Mutant(
        LOOP_C,
        "subscriptions at the control socket are not counted",
        "if (type == TYPE_XPUB)\n",
        "if (0)\n",
    ),
    Mutant(
        RELAY,
        "a relay that has ended leaves its sockets monitors",
        "if moved is None:",
        "if moved is not None:",
        "def _watched(",
    ),
    Mutant(
        RELAY,
        "an idle step of a relay that was stopped does not watch again",
        "may_be_idle = self._watch is None or self._watch.is_on",
        "may_be_idle = True",
    ),
    Mutant(
        CONNECTIONS,
        "the monitor that a socket has is ended for another one",
        "if theirs is not None or _is_watched(target):",
        "if False:",
    ),
    Mutant(
        RUN,
        "the subscriptions of one socket are told of another",
        "roles = dict(zip(relay._roles, ROLES))",
        "roles = dict(zip(relay._roles, reversed(ROLES)))",
    ),
    Mutant(
        RUN,
        "a device does not tell its relay that only a first frame can subscribe",
        "relay.only_first_subscribe = all(said)",
        "pass",
    ),
    Mutant(
        DIRECTION_C,
        "a parked message is dropped in silence",
        "case SEND_REFUSED:\n            return 0;",
        "case SEND_REFUSED:\n            zdev_frames_empty (self, &direction->held);"
        " direction->stage = STAGE_TAKING; return 1;",
    ),
    Mutant(
        DIRECTION_C,
        "a message lost to a dying peer is counted as sent",
        "case SEND_LOST:\n"
        "            return discard (self, direction, &outcome->dropped, frames, bytes);",
        "case SEND_LOST:\n            break;",
    ),
    Mutant(
        FRAMES_C,
        "a PAIR's next peer gets the rest of a message",
        "if (to->type != TYPE_PAIR && !failed) {",
        "if (!failed) {",
    ),
    Mutant(
        FRAMES_C,
        "the rest of a message is kept from a socket that waits for it",
        "if (to->type != TYPE_PAIR && !failed) {",
        "if (0) {",
    ),
    Mutant(
        DIRECTION_C,
        "what cannot be routed is counted as dropped",
        "discard (self, direction, &outcome->unroutable,",
        "discard (self, direction, &outcome->dropped,",
        "case SEND_UNROUTABLE:",
    ),
    Mutant(
        FRAMES_C,
        "EHOSTUNREACH ends the relay",
        "if (error == EHOSTUNREACH || error == ZDEV_EFSM)",
        "if (error == ZDEV_EFSM)",
    ),
    Mutant(TURN_C, "an empty address is one", "return address > 0;", "return 1;"),
    Mutant(
        FRAMES_C,
        "a REP's reply that nobody asked for waits for the next request",
        "(error == ZDEV_EFSM && to->type != TYPE_REP)",
        "(error == ZDEV_EFSM)",
    ),
    Mutant(
        DIRECTION_C,
        "a REP whose request goes nowhere does not answer",
        "if (source->type == TYPE_REP) {",
        "if (0) {",
    ),
    Mutant(INTERNAL_H, "DONTWAIT is missing from a send", "flags |= FLAG_DONTWAIT;", ";"),
    Mutant(
        TURN_C,
        "DONTWAIT is missing from a receive",
        "msg_recv (one, source, FLAG_DONTWAIT)",
        "msg_recv (one, source, 0)",
        SHORT,
    ),
    Mutant(
        FRAMES_C,
        "EINTR escapes from a send",
        "if (error != EINTR)",
        "if (1)",
        "\nzdev_frame_insist (",
    ),
    Mutant(FRAMES_C, "EINTR escapes from a receive", "if (rc != -EINTR)", "if (1)"),
    Mutant(
        FRAMES_C,
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
        FRAMES_C,
        "ETERM is swallowed",
        "return rc == -EAGAIN || rc == -ZDEV_EFSM ? 0 : rc;",
        "return rc < 0 ? 0 : rc;",
    ),
    # The capture, in C
    Mutant(
        DIRECTION_C,
        "the capture gets what the destination has not accepted",
        "if (self->capture && !direction->copied)\n        copy_make (self, direction);",
        "if (self->capture && !direction->copied) {\n"
        "        copy_make (self, direction);\n"
        "        zdev_frames_send (self, &direction->copy, self->capture); }",
    ),
    Mutant(
        DIRECTION_C,
        "capture_policy='drop' waits",
        "(rc == SEND_REFUSED && !self->capture_drop)",
        "rc == SEND_REFUSED",
    ),
    Mutant(
        DIRECTION_C,
        "a capture that fails ends the relay, under 'drop' too",
        "if (rc < 0 && self->capture_drop)",
        "if (0)",
    ),
    Mutant(
        DIRECTION_C,
        "frames of a dropped copy are not closed",
        "zdev_frames_empty (self, &direction->copy);",
        "direction->copy.count = 0;",
        "self->capture_dropped++;",
    ),
    Mutant(
        LIFE_C,
        "what an XPUB capture's peers send is not read",
        "capture->type == TYPE_XPUB",
        "0",
    ),
    Mutant(
        LIFE_C,
        "a monitor that comes while a message is parked never gets a copy",
        "if (!wanted && self",
        "if (self",
    ),
    Mutant(
        LOOP,
        "a monitor that comes while a message is parked never gets a copy",
        "if not wanted and any(",
        "if any(",
    ),
    Mutant(
        LIFE_C,
        "a control socket that comes later is not served",
        "self->control = socket_enter (self, control);",
        "socket_enter (self, control);",
    ),
    Mutant(
        LIFE_C,
        "what is parked is not closed at the end",
        "zdev_frames_close (self, &self->direction[i].held);",
        "",
    ),
    Mutant(
        FRAMES_C,
        "the frames behind the sixteenth are not closed",
        "chunk_close (self, next);",
        "",
    ),
    # Counters, in C
    Mutant(
        LIFE_C,
        "frames_received is off by one",
        "counters->frames_received += direction->held.count;",
        "counters->frames_received += direction->held.count + 1;",
    ),
    Mutant(
        DIRECTION_C,
        "bytes_sent is off by one",
        "outcome->bytes_sent += bytes;",
        "outcome->bytes_sent += bytes - 1;",
        "\nzdev_direction_conclude (",
    ),
    Mutant(
        DIRECTION_C,
        "messages_sent is off by one",
        "outcome->messages_sent++;",
        ";",
        "\nzdev_direction_conclude (",
    ),
    Mutant(
        TURN_C,
        "messages_sent is off by one, of short messages",
        "outcome.messages_sent += messages;",
        "outcome.messages_sent += 2 * messages;",
        COUNT,
    ),
    Mutant(
        TURN_C,
        "frames_sent is off by one, of short messages",
        "outcome.frames_sent += frames;",
        "outcome.frames_sent += frames - 1;",
        COUNT,
    ),
    Mutant(
        TURN_C,
        "a second frame's bytes are not counted, of short messages",
        "bytes += (unsigned) rc;",
        ";",
        SHORT,
    ),
    Mutant(
        LIFE_C,
        "lost messages are not counted as received",
        "counters->messages_received = outcome->messages_sent + lost;",
        "counters->messages_received = outcome->messages_sent;",
    ),
    Mutant(
        DIRECTION_C,
        "a lost message's bytes are not counted as received",
        "direction->outcome.bytes_lost += bytes;",
        ";",
    ),
    Mutant(
        TURN_C,
        "short messages' bytes are not counted",
        "outcome.bytes_sent += bytes;",
        "outcome.bytes_sent += 0;",
        COUNT,
    ),
    Mutant(
        DIRECTION_C,
        "capture_sent is off by one",
        "self->capture_sent++;",
        ";",
        "\nzdev_direction_copy_conclude (",
    ),
    Mutant(
        TURN_C,
        "capture_sent is off by one, of short messages",
        "self->capture_sent++;",
        ";",
        DELIVER,
    ),
    Mutant(
        LIFE_C,
        "parked is not counted",
        "counters->parked = (uint64_t) held;",
        "counters->parked = 0;",
    ),
    # Turns and waiting, in C
    Mutant(
        TURN_C,
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
        DIRECTION_C,
        "a doubtful direction spins",
        "direction->doubtful = shown && rc == 0 && direction->stage == stage;",
        "direction->doubtful = 0;",
    ),
    Mutant(
        LOOP_C,
        "a doubtful direction has no timer",
        "return DOUBT_TIMEOUT;",
        "return -1;",
    ),
    Mutant(
        DIRECTION_C,
        "what was parked for a ROUTER's dead peer is never tried again",
        "if (shown || socket->type == TYPE_ROUTER)",
        "if (shown)",
    ),
    Mutant(
        FRAMES_C,
        "a send may eat a wake-up: the destination stays settled",
        "to->settled = 0;",
        ";",
        "\nzdev_frames_send (",
    ),
    Mutant(TURN_C, "a send may eat a wake-up, of short messages", "to->settled = 0;", ";", DELIVER),
    Mutant(
        TURN_C,
        "a copy's send may eat a wake-up, of short messages",
        "capture->settled = 0;",
        ";",
        DELIVER,
    ),
    Mutant(
        DIRECTION_C,
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
        "zdev_unsettle (self);",
        ";",
        "self->paused = 0;",
    ),
    # Control, in C
    Mutant(
        LOOP_C,
        "STATISTICS has another order",
        "now.there.frames_received, now.there.bytes_received,",
        "now.there.bytes_received, now.there.frames_received,",
    ),
    Mutant(
        LOOP_C,
        "STATISTICS has the sides the wrong way round",
        "now.back.frames_sent, now.back.bytes_sent,",
        "now.there.frames_sent, now.there.bytes_sent,",
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
    Mutant(FRAMES, "the swap is omitted", "self.swap = swap", "self.swap = False"),
    Mutant(
        DIRECTION,
        "the prefix comes last",
        "[self.prefix, *originals]",
        "[*originals, self.prefix]",
    ),
    Mutant(
        DIRECTION,
        "the prefix is there twice",
        "[self.prefix, *originals]",
        "[self.prefix, self.prefix, *originals]",
    ),
    Mutant(
        FRAMES, "the more flag is lost", "SNDMORE if place < last else 0", "0", "    def send(self"
    ),
    Mutant(
        DIRECTION,
        "a parked message is dropped",
        "if result == REFUSED:\n            return 0",
        "if result == REFUSED:\n            self.dropped += 1\n            return self.discard()",
    ),
    Mutant(
        DIRECTION,
        "what is refused is dropped where it should wait",
        "if result == REFUSED and self.drop:",
        "if result == REFUSED:",
    ),
    Mutant(
        DIRECTION,
        "what overflows is not counted as received",
        "lost = self.dropped + self.unroutable + self.overflowed",
        "lost = self.dropped + self.unroutable",
    ),
    Mutant(
        OVERFLOW,
        "an overflow ends at every look",
        "now >= way.last + OVERFLOW_QUIET",
        "now >= way.last",
    ),
    Mutant(WAITS, "a wait is warned of at every look", "wait.is_told = True", "pass"),
    Mutant(WAITS, "nobody is told that it is over", "self._tell_end(wait)", "wait.is_told = False"),
    Mutant(
        WAITS,
        "no warning is due until somebody wakes the relay",
        "return timeout\n\n",
        "return -1\n\n",
    ),
    Mutant(SETTINGS, "a device's settings are lost", "return dict(settings)", "return {}"),
    Mutant(
        FRAMES,
        "a PAIR's next peer gets the rest of a message",
        "if to.type != PAIR and not failed:",
        "if not failed:",
    ),
    Mutant(
        FRAMES,
        "the rest of a message is kept from a socket that waits for it",
        "if to.type != PAIR and not failed:",
        "if False:",
    ),
    Mutant(
        FRAMES,
        "EINTR escapes from a receive",
        "if error != EINTR:",
        "if True:",
        "def take(",
    ),
    Mutant(FRAMES, "EINTR escapes from a send", "if error != EINTR:", "if True:", "def insist("),
    Mutant(
        FRAMES,
        "DONTWAIT is missing from a send",
        "flags |= DONTWAIT",
        "pass",
        "def frame_send(",
    ),
    Mutant(
        DIRECTION,
        "frames_received is off by one",
        "self.frames_held = frames",
        "self.frames_held = frames - 1",
    ),
    Mutant(
        FRAMES,
        "a frame's bytes are not counted",
        "self.bytes += size if",
        "self.bytes = size if",
    ),
    Mutant(
        DIRECTION,
        "frames of a message that goes nowhere were never received",
        "self.frames_lost += self.frames_held",
        "pass",
    ),
    Mutant(
        DIRECTION,
        "what is parked was never received",
        "self.bytes_lost + parked * self.bytes_held",
        "self.bytes_lost",
    ),
    Mutant(
        DIRECTION,
        "what cannot be routed is counted as dropped",
        "self.unroutable += 1",
        "self.dropped += 1",
        "if result == UNROUTABLE:",
    ),
    Mutant(
        DIRECTION,
        "capture_policy='drop' waits",
        "(result == REFUSED and not capture.drop)",
        "result == REFUSED",
    ),
    Mutant(
        DIRECTION,
        "frames of a message that goes nowhere are not released",
        "self.held.empty()",
        "self.held.reset()",
        "def discard(",
    ),
    Mutant(
        DIRECTION,
        "a REP whose request goes nowhere does not answer",
        "if source.type == REP:",
        "if False:",
        "def discard(",
    ),
    Mutant(DIRECTION, "a burst has one too many", "self.moved < burst", "self.moved <= burst"),
    Mutant(
        LOOP,
        "a busy loop ignores the wake-up",
        "if self._since_look >= self._burst:",
        "if False:",
    ),
    Mutant(FRAMES, "a send may eat a wake-up", "to.settled = False", "pass", "    def send(self"),
    Mutant(
        LOOP,
        "the wake-up descriptor is not polled",
        "fds = [self._wakeup_fd]",
        "fds: list[int] = []",
    ),
    Mutant(LOOP, "a paused relay spins", "not self.paused", "True", "def is_read("),
    Mutant(
        DIRECTION,
        "a doubtful direction spins",
        "self.doubtful = shown and",
        "self.doubtful = False and",
    ),
    Mutant(LOOP, "a doubtful direction has no timer", "return DOUBT_TIMEOUT", "return -1"),
    Mutant(DIRECTION, "a wait begins anew at each look", "if self.waits_since == 0:", "if True:"),
    Mutant(
        LOOP,
        "a relay is not told of long waits",
        "return 0\n        if direction",
        "return -1\n        if direction",
    ),
    Mutant(
        LOOP,
        "TERMINATE is ignored in a pause",
        "self._terminated = True",
        "self._terminated = not self.paused",
    ),
    Mutant(
        LOOP,
        "STATISTICS has another order",
        "(there.frames_received, there.bytes_received)",
        "(there.bytes_received, there.frames_received)",
    ),
    # The Python loop's short way
    Mutant(
        TURN,
        "the swap of a short message is omitted",
        "*slots[2:]] if swap",
        "*slots[2:]] if False",
    ),
    Mutant(TURN, "the more flag of a short message is lost", "DONTWAIT | SNDMORE", "DONTWAIT"),
    Mutant(
        TURN,
        "the prefix of a short message is missing",
        "[] if self.prefix is None else [self.prefix]",
        "[]",
    ),
    Mutant(
        TURN,
        "a short message's address is not looked at",
        "(address > 0 or self.destination.type != ROUTER)",
        "True",
    ),
    Mutant(TURN, "of two addresses, the wrong one is looked at", "if swap and", "if False and"),
    Mutant(
        TURN,
        "a short message goes to a ROUTER without an address",
        "count >= 2 and (address",
        "(address",
    ),
    Mutant(
        TURN,
        "short messages are sent twice",
        "self.messages_sent += messages",
        "self.messages_sent += 2 * messages",
    ),
    Mutant(TURN, "a short message's bytes are not counted", "size += total", "pass"),
    Mutant(
        TURN,
        "short messages do not count for the burst",
        "self.moved += messages",
        "self.moved += bool(messages)",
    ),
    Mutant(TURN, "a short copy is not counted", "self.capture.sent += 1", "pass"),
    Mutant(TURN, "a short send may eat a wake-up", "to.settled = False", "pass"),
    Mutant(TURN, "a short copy's send may eat a wake-up", "capture.settled = False", "pass"),
    Mutant(TURN, "a short message is as long as it likes", " or count == MAX_SHORT", ""),
    Mutant(
        TURN,
        "a short message begins within another",
        "self.held.count == 0 and",
        "True and",
    ),
    Mutant(
        TURN,
        "a parked copy of a short message is forgotten",
        "self.stage = COPY",
        "pass",
        "def short_copy_refused(",
    ),
    Mutant(
        TURN,
        "the copy of a parked short message is made twice",
        "self.copied = True",
        "pass",
        "def short_refused(",
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
        "a relay is left in two ways, where a PyPy crashes if a handler raises",
        "stopped = moved is None",
        "stopped = moved is None\n"
        "                    if not stopped:\n"
        "                        return moved\n"
        "                    return None",
    ),
    Mutant(
        ASKED,
        "stop() does not wake the relay",
        "self._wakeup.wake()",
        "pass",
        "self._stops.add(drain, quiet)",
    ),
    Mutant(
        STOPS,
        "stop() does not try what is parked a last time",
        "raise_for(loop.flush())",
        "pass",
    ),
    Mutant(STOPS, "a stop ends the next run too", "del self._asked[: len(asked)]", "pass"),
    Mutant(
        STOPS,
        "a drain leaves the pause as it is",
        "loop.paused = False  # a drain ends a pause",
        "pass",
    ),
    Mutant(STOPS, "a drain does not end before its time", "if self._patience <= 0:", "if False:"),
    Mutant(
        STOPS,
        "a drain does not wait for replies",
        "statistics.unanswered = max(counts)",
        "pass",
    ),
    Mutant(
        STOPS,
        "replies that nobody asked a REP for answer requests",
        "answered -= back.unroutable",
        "pass",
    ),
    Mutant(
        STOPS,
        "a drain goes on to take new requests",
        "self._shut(loop, *self._ways)",
        "pass",
    ),
    Mutant(
        STOPS,
        "a drain takes no more requests as soon as it finds none, though some may be under way",
        "is_due and shows_all",
        "shows_all",
    ),
    Mutant(
        STOPS,
        "a broker that always finds a request is never drained",
        "if is_late or (is_due",
        "if (is_due",
    ),
    Mutant(
        STOPS,
        "what a drain has shut stays shut",
        "self._shut(loop, False, False)",
        "pass",
    ),
    Mutant(
        DIRECTION,
        "a direction that is shut is read",
        "(self.source.settled or self.shut)",
        "self.source.settled",
    ),
    Mutant(TURN_C, "a direction that is shut is read, in C", " || direction->shut", ""),
    Mutant(
        RUN,
        "a device does not tell what a drain has left",
        "self.last_stop.warn(self.log, self.name)",
        "pass",
    ),
    Mutant(SOCKETS, "two relays may use one socket", "is not user:", "is None:", "def claim("),
    Mutant(
        RELAY,
        "two ROUTER sockets are not swapped between by default",
        "swap = ends[front].type == ends[back].type == zmq.ROUTER",
        "swap = False",
    ),
    Mutant(CALLS, "a call does not get its result", "self._over.release()", "pass", "def end("),
    Mutant(CALLS, "a call that was called off is run", "if not request.begin():", "if False:"),
    Mutant(CALLS, "whoever takes the loop does not wait for visits", "if all(", "if True or all("),
    Mutant(
        CALLS,
        "a visit that a run has interrupted is not made again",
        "if uses == self._uses:",
        "if True:",
    ),
    Mutant(
        CALLS,
        "two visits that do not share are made at once",
        "(shared or len(self._visits) == 1)",
        "True",
    ),
    Mutant(
        CALLS,
        "a handler that raises in a visit leaves its note",
        "finally:  # a handler may have raised just before that\n                self._visits.pop(",
        "finally:\n                {}.pop(",
    ),
    Mutant(
        RELAY,
        "an idle step does not see a stop that comes in its middle",
        "not may_move and not self._stops",
        "not may_move",
    ),
    Mutant(
        DESCRIPTOR,
        "an event loop is not told that a step has left more",
        "if moved == 0 or self._loop.look() == 0:",
        "if True:",
    ),
    Mutant(
        DESCRIPTOR,
        "an event loop is woken again behind each step",
        "if bound == 0:",
        "if True:",
    ),
    Mutant(
        DESCRIPTOR,
        "an event loop is not woken when a time is due",
        "self._set.alarm(self._left())",
        "pass",
        "def rest(",
    ),
    Mutant(
        DESCRIPTOR,
        "an event loop goes on to watch a capture that has failed",
        "self._loop.capture_failed and",
        "False and",
    ),
    Mutant(
        DESCRIPTOR,
        "an idle step leaves the wake-up as it is",
        "return self._wakeup.is_rung or (",
        "return (",
        "def is_due(",
    ),
    Mutant(
        DESCRIPTOR,
        "an idle step does not see that a time is due",
        "(self._due != NEVER and self._left() == 0)",
        "False",
        "def is_due(",
    ),
    Mutant(
        DESCRIPTOR,
        "a handler that raises behind a call keeps an event loop from being woken",
        "self._want_step()\n            raise",
        "raise",
    ),
    Mutant(
        ASKED,
        "the end of a pause does not wake an event loop",
        'self._wanting(lambda: self._ask(lambda: setattr(self._loop, "paused", False)))',
        'self._ask(lambda: setattr(self._loop, "paused", False))',
    ),
    Mutant(
        RELAY,
        "a handler that raises in an idle step takes the sign of a message",
        "self._want_step()\n            raise",
        "raise",
    ),
    Mutant(
        RELAY,
        "a step that ends a relay does not tell an event loop of what it leaves",
        "self._want_step()  # for what it leaves",
        "pass",
    ),
    Mutant(WAKEUP, "a wake-up is rung for ever", "self.is_rung = False  # first", "pass  #"),
    Mutant(
        LOOP_C,
        "a look does not tell that the capture has failed",
        "movable = 1;            /*  the caller of a look has to know       */",
        "",
    ),
    Mutant(
        LOOP_C,
        "what is parked needs no other step",
        "longest >= 0 && (patience < 0",
        "0 && (patience < 0",
    ),
    Mutant(
        LOOP,
        "a look does not tell that the capture has failed, in Python",
        "movable = 1  # the caller of `look` has to know",
        "pass",
    ),
    Mutant(
        LOOP,
        "what is parked needs no other step, in Python",
        "(bound for bound in bounds if bound >= 0)",
        "()",
    ),
    Mutant(
        RELAY,
        "an idle step takes its sockets for free",
        "_sockets.claim(self._claimed, self)",
        "pass",
        "def _is_stuck(",
    ),
    Mutant(
        SIGNALS, "a signal that waits counts each time", "if number not in self._noted:", "if True:"
    ),
    Mutant(SIGNALS, "the end of a run is tried once", "tries > 1 and", "False and"),
    Mutant(
        ENGINES,
        "a fork does not wait until the engine is chosen",
        'hasattr(os, "register_at_fork")',
        "False",
    ),
    Mutant(
        SIGNALS,
        "set_wakeup_fd is not put back",
        "signal.set_wakeup_fd(-1)",
        "pass",
        "def _end(",
    ),
    Mutant(
        WIRING,
        "what was unbound is still among the endpoints",
        "bound.remove(pair)",
        "pass",
    ),
    Mutant(WIRING, "a device's sockets are not closed", "target.close()", "pass", "def close("),
    Mutant(PROGRESS, "a device's error is not kept", "self.exception = error", "pass", "def fail("),
    Mutant(
        METHODS,
        "a live edit is not for the next start",
        "for plans in (run.plans, self._plans):",
        "for plans in (run.plans,):",
    ),
    Mutant(TIMES, "a time may be negative", " or seconds < 0", "", "def check_seconds("),
    Mutant(
        RELAY,
        "what is said of a capture that is not there is not minded",
        "if capture is None:",
        "if False:",
    ),
    Mutant(
        RELAY,
        "a capture that comes later is nobody's to anyone else",
        "_sockets.claim({role: end}, self)",
        "pass",
    ),
    Mutant(
        WIRING,
        "what waits in a monitor that came later holds up the end of the context",
        "self._hold_linger(target)\n        return target",
        "return target",
    ),
    Mutant(
        WIRING,
        "a subclass gets no monitor that nobody has wired",
        "if self.is_plain and self.watch is None:",
        "if self.watch is None:",
    ),
    Mutant(
        RUN,
        "a stop does not wait for connections to be closed",
        "is_local=self.wiring.is_local()",
        "is_local=True",
    ),
    Mutant(
        METHODS,
        "to unbind what is connected disconnects it",
        "self._check_undone(role, verb, *args)",
        "pass",
    ),
    Mutant(
        ADDRESSES,
        "libzmq takes a port of more than 16 bits for another",
        "int(number[1]) > MAX_PORT",
        "int(number[1]) < 0",
    ),
    Mutant(
        TYPES,
        "a subclass may not have types of its own",
        "is_plain = device._is_plain()",
        "is_plain = True",
    ),
    Mutant(
        PROGRESS,
        "an end of which a step fails is no end",
        "self.fail(error)",
        "raise",
        "def _go_through(",
    ),
    Mutant(
        PROGRESS,
        "what a start raises is shown besides",
        "is_seen = self.is_awaited or is_early or not self._in_background",
        "is_seen = not self._in_background",
    ),
    Mutant(
        CHILD,
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
        "def _close_link(",
    ),
    Mutant(
        RUN,
        "a stop returns while the old sockets still live",
        '"_await_release",',
        "",
    ),
    Mutant(
        FORK,
        "a forked child waits for an import of its parent's, on PyPy",
        "    os.register_at_fork(after_in_child=_free_imports)",
        "    pass",
    ),
    Mutant(
        FORK,
        "a fork holds the connections that a device of its parent has accepted",
        "!= _socket.SOCK_STREAM",
        "!= _socket.SOCK_STREAM"
        " or not looked_at.getsockopt(_socket.SOL_SOCKET, _socket.SO_ACCEPTCONN)",
    ),
    Mutant(
        CONNECTIONS,
        "a connection that failed its handshake was a peer",
        "self._failing = max(self._failing - 1, 0)",
        "self._disconnected += 1",
    ),
    Mutant(
        CONNECTIONS,
        "libzmq's threads wait for a monitor whose socket outlives its device",
        "if event == zmq.EVENT_MONITOR_STOPPED:",
        "if event in (zmq.EVENT_MONITOR_STOPPED, zmq.EVENT_CLOSED):",
    ),
    Mutant(
        CONNECTIONS,
        "who was left by disconnect is still there",
        "self._counts[role].leave(address)",
        "pass",
    ),
    Mutant(
        PROCESS,
        "a signal handler may raise in the middle of the launch of a process",
        "with DeferredSignals():",
        "with contextlib.nullcontext():",
        "def _launch_process(",
    ),
    Mutant(
        LINK,
        "a stop waits until there is room for it in the link",
        "self._wake_sender()",
        "self.connection.send_bytes(self._outbox.pop())",
        "def ask(",
    ),
    Mutant(
        HEEDED,
        "a process device ends by a signal that the program ignores",
        "signal.SIG_IGN if is_ignored else self._on_signal",
        "self._on_signal",
    ),
    Mutant(
        HEEDED,
        "a signal meets a process that is not yet ready for it",
        "signal.pthread_sigmask(signal.SIG_BLOCK, END_SIGNALS)",
        "pass",
    ),
    Mutant(
        METHODS,
        "a copy of a device has its plans in common with it",
        "self._plans.copy()",
        "self._plans",
        "def _unshared(",
    ),
    Mutant(
        METHODS,
        "a port that is held goes into every copy",
        "if get_spawning_popen() is None:",
        "if False:",
        "def _unshared(",
    ),
    # Event loops
    Mutant(
        STAGES,
        "who watches for a stage that has been reached is never told",
        "if self.now >= stage and self._waiters.pop(watcher, None) is not None:",
        "if False:",
        "def watch(",
    ),
    Mutant(
        CHILD,
        "what a call returns ends the thread that obeys, if it does not pickle",
        'if verb == "call":',
        "if False:",
    ),
    Mutant(
        AIO_LIBRARIES,
        "a cancelled scope of anyio's keeps a processor busy while a device ends",
        "contextlib.nullcontext() if anyio is None else anyio.CancelScope(shield=True)",
        "contextlib.nullcontext()",
    ),
    Mutant(
        AIO_LIBRARIES,
        "a second cancellation cuts the wait for a device's end short",
        "raised = error",
        "raise",
        "async def heard_in_spite(",
    ),
    Mutant(
        AIO_LIBRARIES,
        "a cancellation is lost that comes while a device ends",
        "if raised is not None:",
        "if False:",
        "async def heard_in_spite(",
    ),
    Mutant(
        AIO_LIBRARIES,
        "a thread that tells a closed event loop of its end raises",
        "with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more",
        "with contextlib.nullcontext():",
    ),
    Mutant(
        AIO_LIBRARIES,
        "a task of trio's is taken for asyncio's, whose guest it is",
        "trio.lowlevel.current_task()",
        "raise RuntimeError",
    ),
    Mutant(
        AIO_THREADS,
        "a cancellation does not wait for the start that it interrupts",
        "if work.has_begun:",
        "if False:",
        "async def in_thread(",
    ),
    Mutant(
        AIO_THREADS,
        "a start that hangs is waited for by a task that is cancelled",
        "heard_in_spite(work.bell, _times.LEAVE_PATIENCE)",
        "heard_in_spite(work.bell)",
    ),
    Mutant(
        AIO_THREADS,
        "a wait for a thread that could not begin",
        "if work.has_begun:",
        "if True:",
        "async def in_thread(",
    ),
    Mutant(
        AIO_THREADS,
        "what goes wrong with the end of a cancelled device is lost",
        "if shielded and has_ended:",
        "if False:",
    ),
    Mutant(
        AIO_LIFE,
        "a start that is cancelled at its very end leaves a device that runs",
        "await self._end(None)",
        "pass",
        "async def _begin(",
    ),
    Mutant(
        AIO_LIFE,
        "a device whose start was left alone runs on",
        "if self.is_called_off:",
        "if False:",
        "def run(",
    ),
    Mutant(
        AIO_LIFE,
        "a device may be entered by two",
        "if not self._held.acquire(blocking=False):",
        "if not self._held.acquire(blocking=False) and False:",
    ),
    Mutant(
        AIO_LIFE,
        "a coroutine that is closed waits for the end of its device",
        "if isinstance(error, GeneratorExit):",
        "if False:",
        "async def __aexit__(",
    ),
    Mutant(
        AIO_LIFE,
        "a cancellation does not cut a drain short",
        "stop, interrupt=lambda: ask_to_stop(self._plain))",
        "stop)",
    ),
    Mutant(
        AIO_LIFE,
        "what ends a device within its context is not raised there",
        "if kind is None and self.exception is not None:",
        "if False:",
    ),
    Mutant(
        AIO_WATCHING,
        "a wait that is cancelled leaves its watch",
        "forget()",
        "pass",
        "async def wait_for_end(",
    ),
    Mutant(
        AIO_FUNCTIONS,
        "a function that is cancelled before it relays goes on",
        "if self._is_over:",
        "if False:",
    ),
    Mutant(
        AIO_FUNCTIONS,
        "an event loop looks at a socket that a relay has",
        "socket._clear_io_state()",
        "pass",
        "async def _take_from_loop(",
    ),
    # gevent
    Mutant(
        THREADS,
        "a patched program's threads are tasks",
        "if not _tasks.has_replaced_threads():",
        "if True:",
    ),
    Mutant(
        TASKS,
        "a task blocks the others while it waits",
        "return hub",
        "return None",
        "def current_hub(",
    ),
    Mutant(
        TASKS,
        "a fork goes on with its parent's tasks",
        "local.set_hub(None)\n    local.set_loop(None)",
        "return",
    ),
    Mutant(
        TASKS,
        "a thread leaves its hub's descriptors open",
        "hub.destroy(destroy_loop=True)",
        "pass",
    ),
    Mutant(
        TASKS,
        "a hub looks at a socket that a relay has",
        "watcher.stop()",
        "pass",
        "def stop(",
    ),
    Mutant(
        TASKS,
        "a hub is at the sockets of a relay that another thread begins",
        "if hub is None or hub.loop is not loop:",
        "if False:",
    ),
    Mutant(
        TASKS,
        "a signal of a hub's is taken for Python's",
        "return None if handler == ours else handler",
        "return None",
    ),
    Mutant(
        TASKS,
        "a thread logs by locks that are gevent's",
        "if not has_replaced_threads() or _in_main_thread():",
        "if True:",
    ),
    Mutant(
        TASKS,
        "a thread has gevent watch for the child that it forks",
        "if fork is None or fork is real or _in_main_thread():",
        "if True:",
    ),
    Mutant(
        TASKS,
        "the end of a process is taken from a hub that watches for it",
        "return watched is not None and not isinstance(watched, tuple)",
        "return False",
    ),
    Mutant(
        TASKS,
        "a hub asks after a socket that is closed",
        "if target._state_event is watcher and not target.closed:",
        "if True:",
    ),
    Mutant(
        ASIDE,
        "what a handler raises is printed by the hub",
        "if handlers else",
        "if False else",
    ),
    Mutant(
        ASIDE,
        "a relay goes on when the task that waits for it is killed",
        "stop()\n            while not self._is_over:",
        "stop\n            while False:",
    ),
    Mutant(
        RELAY,
        "a task that is killed takes a stop along that was meant for another run",
        "if left:\n",
        "if left and not self._stops.add(None):\n",
    ),
    Mutant(
        RELAY,
        "a stop is lost when its run has ended just as its task was killed",
        "if is_over:  # as",
        "if False:  # as",
    ),
    Mutant(
        HEEDED,
        "a hub prints what is to end a subclass",
        "class Stopped(SystemExit):",
        "class Stopped(BaseException):",
    ),
    Mutant(
        PORTS,
        "a held port is not handed over where sockets are patched",
        "listener = HeldPort(",
        "listener = socket_class(",
    ),
    Mutant(
        WIRING,
        "a server without its handler lets all in",
        "zmq.ZAP_ENFORCE_DOMAIN, 1)",
        "zmq.ZAP_ENFORCE_DOMAIN, 0)",
    ),
    Mutant(
        WIRING,
        "a new list is not taken while the device runs",
        "gate.allowed = allowed\n",
        "pass\n",
        "def _allow(",
    ),
    Mutant(
        WIRING,
        "a list at a socket that is no server is taken",
        "if not target.getsockopt(option):",
        "if False:",
    ),
    Mutant(
        WIRING,
        "sockets that a subclass has made have no list, and nobody says so",
        "and self.sockets[role] not in self._gates",
        "and False",
    ),
    Mutant(
        WIRING,
        "the handler is left when the device has ended",
        "gate.leave()",
        "pass",
    ),
    Mutant(
        METHODS,
        "what is bound already is secured for what follows only",
        "if any(plan.binds or plan.connects for plan in plans):",
        "if False:",
    ),
    Mutant(
        PLAN,
        "a device runs without the list that it was given",
        "self.sockopts.copy(), self.allowed",
        "self.sockopts.copy(), None",
    ),
    Mutant(
        PLAN,
        "a list alone makes no socket",
        "or self.sockopts or self.allowed",
        "or self.sockopts",
    ),
    Mutant(
        SECURITY,
        "the options of a mechanism that was replaced are set, too",
        "if pair[0] not in CURVE | PLAIN]",
        "]",
    ),
    Mutant(
        SECURITY,
        "a directory is read for secret certificates, too",
        'if name.endswith(".key")',
        'if ".key" in name',
    ),
    Mutant(
        SECURITY,
        "a libzmq that cannot refuse whom nobody is asked about is taken",
        "if zmq.zmq_version_info() < (4, 3):",
        "if False:",
    ),
    Mutant(
        ZAP,
        "every key opens",
        "if key in self.keys else None",
        "if key else None",
    ),
    Mutant(
        ZAP,
        "every password opens",
        "if is_right and known",
        "if known",
    ),
    Mutant(
        ZAP,
        "a list of keys lets passwords in, or nothing at all",
        'if mechanism.decode(errors="replace") != self.mechanism:',
        "if False:",
    ),
    Mutant(
        ZAP,
        "a domain that nobody has lets in",
        'if not domain and mechanism != b"PLAIN":',
        'if mechanism != b"PLAIN":',
    ),
    Mutant(
        ZAP,
        "a server without a list refuses all where another has one",
        'if not domain and mechanism != b"PLAIN":',
        "if False:",
    ),
    Mutant(
        ZAP,
        "a malformed question ends the handler",
        "except Exception as error:  # libzmq",
        "except KeyError as error:  # libzmq",
    ),
    Mutant(
        ZAP,
        "a refusal is not told",
        'self._complaints.warn(f"{self._role}',
        'str(f"{self._role}',
    ),
    Mutant(
        ZAP,
        "a name that may be a password is told",
        'return "PLAIN, with a user name that is not known"',
        'return f"PLAIN, {credentials!r}"',
    ),
    Mutant(
        ZAP,
        "the name of a handler that has ended is taken for a while",
        "self._socket.unbind(ENDPOINT)",
        "pass",
    ),
    Mutant(
        ZAP,
        "a handler lives on when its last gate is left",
        "if not self._handler.gates:",
        "if False:",
    ),
    Mutant(
        ZAP,
        "a handler that has failed is asked for ever",
        "if handler is not None and handler.is_over:",
        "if False:",
    ),
    Mutant(
        ZAP,
        "the handler of a parent is asked in its fork",
        "_of_parents.extend(_handlers.values())\n    _handlers.clear()",
        "pass",
    ),
    Mutant(
        SECRETS,
        "a secret shows itself",
        'return "<secret>"',
        "return repr(bytes(self))",
    ),
    Mutant(
        SECRETS,
        "a secret goes into any pickle",
        "if get_spawning_popen() is None:",
        "if False:",
    ),
    Mutant(
        OPTIONS,
        "a secret that is set as an option shows itself",
        "if number in SECRETS:",
        "if False:",
    ),
    Mutant(
        LINK,
        "a process cannot be told a secret",
        "message = dumps_for_child((",
        "message = pickle.dumps((",
    ),
    Mutant(
        CERTIFICATES,
        "a secret that the group can read is taken",
        "mode & others:",
        "mode & stat.S_IROTH:",
    ),
    Mutant(
        CERTIFICATES,
        "a credential that all can read is taken",
        "others = OTHERS & ~stat.S_IRGRP",
        "others = 0",
    ),
    Mutant(
        CERTIFICATES,
        "others can read a secret until it is written",
        "os.O_EXCL, 0o600)",
        "os.O_EXCL, 0o644)",
    ),
    Mutant(
        CERTIFICATES,
        "a secret certificate is replaced unasked",
        "os.O_CREAT | os.O_EXCL",
        "os.O_CREAT | os.O_TRUNC",
    ),
    Mutant(
        CERTIFICATES,
        "keys that changed places are taken",
        "if zmq.curve_public(secret) != bytes(public):",
        "if False:",
    ),
    Mutant(
        CERTIFICATES,
        "half a pair of keys is left",
        "for new in written:\n            with",
        "for new in ():\n            with",
    ),
    Mutant(
        CONNECTIONS,
        "the log is flooded by those who are refused",
        "if self._told == COMPLAINTS:",
        "if False:",
    ),
    Mutant(
        CONNECTIONS,
        "what was held back of the log is never told",
        "held, self._held = self._held, 0",
        "held = 0",
    ),
    Mutant(
        CONNECTIONS,
        "a peer that knows another key is not told of",
        "and value in CREDENTIALS:",
        "and False:",
    ),
    Mutant(
        STEERING,
        "libzmq's own proxy hangs, since nobody takes its answer to a command",
        "_stay(client, command, deadline)",
        "client.close(1)",
    ),
    Mutant(
        STEERING,
        "a command is said to a PAIR that has another peer, and taken for obeyed",
        "counts = _ask_counts(client, deadline)",
        "counts = {}",
    ),
    Mutant(
        STEERING,
        "a PUB says a command before anybody has subscribed to it",
        "_await_subscription(client, command, deadline)",
        "pass",
    ),
    Mutant(
        VALUES,
        "a terminal is sent control characters that are no ASCII",
        "one if one.isprintable() and one not in also",
        'one if (one.isprintable() or one > "~") and one not in also',
    ),
    Mutant(
        OUTPUT,
        "a line of JSON has control characters, and cannot be written everywhere",
        "**fields})",
        "**fields}, ensure_ascii=False)",
    ),
    Mutant(
        TAP,
        "a tap whose reader has gone waits for a message before it ends",
        "self._client.poller.register(output, zmq.POLLERR)",
        "pass",
    ),
    Mutant(
        TAP,
        "a tap does not tell that the monitor may have dropped messages for it",
        "self._at_once += 1",
        "self._at_once = 1",
    ),
    Mutant(
        TAP,
        "a tap shows more than a terminal bears",
        "self._arguments.all or self._allowance.take(now)",
        "self._arguments.all or self._allowance.take(now) or self._shown",
    ),
    Mutant(
        TAP_FRAMES,
        "a character is cut in two",
        "while end > CUT - 3 and",
        "while False and",
    ),
    Mutant(
        TAP_CONNECTION,
        "a tap says again and again that nothing comes",
        "self.speak_at = math.inf",
        "self.speak_at = now",
    ),
    Mutant(
        CONNECTS,
        "what a name has no more stays connected",
        "name.addresses.remove(each)\n            self._leave(role, each)",
        "name.addresses.remove(each)",
    ),
    Mutant(
        CONNECTS,
        "what two names have is left when one has it no more",
        "return (target, addr) in self._given or self._is_of_name(target, addr)",
        "return (target, addr) in self._given",
    ),
    Mutant(
        CONNECTS,
        "what a name has is left though it was given, too",
        "return (target, addr) in self._given or self._is_of_name(target, addr)",
        "return self._is_of_name(target, addr)",
    ),
    Mutant(
        CONNECTS,
        "a name that leaves ends the bind of its own socket",
        "return is_bound or self._is_connected(target, addr)",
        "return self._is_connected(target, addr)",
    ),
    Mutant(
        CONNECTS,
        "an answer about a name that was left is heeded",
        "if self._names.get((role, name.addr)) is not name:",
        "if (role, name.addr) not in self._names:",
    ),
    Mutant(
        CONNECTS,
        "an address in bytes is not known as one of a name",
        "addr, target = text_of(addr), self._sockets[role]",
        "target = self._sockets[role]",
    ),
    Mutant(
        CONNECTS,
        "a name that is disconnected from keeps its addresses",
        "while name.addresses:",
        "while False:",
    ),
    Mutant(
        CONNECTS,
        "a time to look a name up does not change",
        "self._names[role, addr].change(every)",
        "pass",
    ),
    Mutant(
        RESOLVING,
        "a name that fails is told of at each look",
        "if not (self._fails or self._is_over):",
        "if not self._is_over:",
    ),
    Mutant(
        RESOLVING,
        "a name is looked up once",
        "while not self._is_over:",
        "for _ in range(1):",
    ),
    Mutant(
        RESOLVING,
        "a name of which nobody can be told is looked up for ever",
        "self._is_over = True\n                    return",
        "return",
    ),
    Mutant(
        WIRING,
        "a socket that is connected to a name counts as idle",
        "if not (s in named or last_endpoint(s))",
        "if not last_endpoint(s)",
    ),
    Mutant(
        FILE,
        "[curve] holds also where a device says something else",
        "if curve is not None and not wanted.proofs and wanted.allow is None:",
        "if curve is not None:",
    ),
    Mutant(
        BROKERS,
        "a socket may be told to have two ways to prove who it is",
        "if len(wanted.proofs) > 1:",
        "if False:",
    ),
    Mutant(
        WIRING,
        "an address is still taken when the unbind has returned",
        "await_unbound(self.sockets[role].context, SHORT_PATIENCE)",
        "pass",
    ),
]
