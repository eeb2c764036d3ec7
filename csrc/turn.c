/*  turn.c: a burst of one direction, and the short way for short messages.

    A burst receives, enters and delivers one message after another. That is
    all there is to it; compiled with ZDEV_NO_SHORT_WAY, this file does nothing
    else, and the relay is whole, but slower.                                 */

#include "internal.h"

#include <limits.h>

/*  ----------------------------------------------------------------------
    Go on with a message of which zdev_frames_take has returned rc. Returns 1
    when the direction is free for the next one, 0 when it waits or the source
    has nothing (more) now.                                                   */

SELDOM static int
turn_any (zdev_relay *self, zdev_direction *direction, int rc, int *moved)
{
    if (rc != 1)
        return rc;
    (*moved)++;
    zdev_direction_enter (direction);
    return zdev_direction_deliver (self, direction);
}

#ifndef ZDEV_NO_SHORT_WAY

/*  ----------------------------------------------------------------------
    The short way: a message of a few frames goes straight from one of libzmq's
    calls into the next, and is counted with the rest of its burst.

    Without it, each message is held and accounted for before it is sent on. For
    a small one, that costs a third of what libzmq takes: PULL-PUSH comes to 916
    instructions a message instead of 682, where the bare calls take 670; with a
    monitor to 1845 instead of 1466. `python -m benchmarks gate` counts them.

    It makes the same calls in the same order as zdev_frames_receive and
    zdev_direction_deliver do. Whatever is not as usual, it leaves to the rest,
    with what is known of the message by then: a receive or a send that fails, a
    message that may not go straight on, memory that is short for a copy.
    Three loops were tried first, each written for a case of its own; one that
    is compiled three times is as fast.

    test_every_error_at_every_call (tests/loops/test_injection.py) shows that it
    does what the Python loop does; tests/loops/test_short_way.py, that the rest
    does so without it.                                                       */

#if defined __GNUC__
#   define UNROLL _Pragma ("GCC unroll 3")
#else
#   define UNROLL
#endif

/*  ----------------------------------------------------------------------
    Count short messages as sent.                                             */

static inline void
short_count (zdev_direction *direction, uint64_t messages, uint64_t frames,
             uint64_t bytes)
{
    direction->outcome.messages_sent += messages;
    direction->outcome.frames_sent += frames;
    direction->outcome.bytes_sent += bytes;
}

/*  ----------------------------------------------------------------------
    What becomes of a short message that does not go straight through, in the
    three functions that follow: it is counted there, and they return 2 if the
    direction is free for the next one all the same, 0 if not, or -errno.

    The destination did not take the frame in `slot` of the message, which ends
    in `last`.                                                                */

SELDOM static int
short_refused (zdev_relay *self, zdev_direction *direction, zdev_msg *last,
               uint64_t bytes, zdev_msg *slot, int error)
{
    zdev_frames *held = &direction->held;
    zdev_socket *to = direction->destination;
    size_t count = (size_t) (last - held->first.frame) + 1;
    int rc;

    zdev_direction_enter (direction);
    if (self->capture) {
        direction->copied = 1;
        direction->copy.count = count + (direction->has_prefix ? 1 : 0);
    }
    if (slot == held->first.frame) {
        held->count = count;
        held->bytes = bytes;
        rc = zdev_refusal (to, error);
    }
    else
        rc = zdev_frames_send_lost (self, &held->first, slot,
                                    (size_t) (last - slot) + 1, to, error);
    rc = zdev_direction_conclude (self, direction, rc, count, bytes);
    return rc == 1 ? 2 : rc;
}

/*  ----------------------------------------------------------------------
    It was sent on, but the capture socket did not take the frame in `slot` of
    its copy, which ends in `last`.                                           */

SELDOM static int
short_copy_refused (zdev_relay *self, zdev_direction *direction, size_t count,
                    uint64_t bytes, zdev_msg *last, zdev_msg *slot, int error)
{
    zdev_frames *copy = &direction->copy;
    int rc;

    short_count (direction, 1, count, bytes);
    direction->copied = 1;
    direction->stage = STAGE_COPY;
    if (slot == copy->first.frame) {
        copy->count = (size_t) (last - slot) + 1;
        rc = zdev_refusal (self->capture, error);
    }
    else
        rc = zdev_frames_send_lost (self, &copy->first, slot,
                                    (size_t) (last - slot) + 1, self->capture,
                                    error);
    rc = zdev_direction_copy_conclude (self, direction, rc);
    return rc == 1 ? 2 : rc;
}

/*  ----------------------------------------------------------------------
    Deliver a message that may not go straight on, or for whose copy memory is
    short; the copy then has so many frames.                                  */

SELDOM static int
short_detour (zdev_relay *self, zdev_direction *direction, zdev_msg *last,
              uint64_t bytes, size_t copied)
{
    zdev_frames *held = &direction->held;
    held->count = (size_t) (last - held->first.frame) + 1;
    held->bytes = bytes;
    zdev_direction_enter (direction);
    if (copied > 0) {
        direction->copied = 1;
        direction->copy.count = copied;
        zdev_frames_empty (self, &direction->copy);
    }
    int rc = zdev_direction_deliver (self, direction);
    return rc == 1 ? 2 : rc;
}

/*  ----------------------------------------------------------------------
    Is the direction plain: may all messages go straight on, without a look at
    their frames?                                                             */

static inline int
is_plain (const zdev_direction *direction)
{
    int type = direction->destination->type;
    return !direction->held.swap && type != TYPE_ROUTER && type != TYPE_XSUB
        && type != TYPE_STREAM;
}

/*  ----------------------------------------------------------------------
    May this message of a direction that is not plain go straight on? Not what
    zdev_direction_deliver has to look at.                                    */

static ALWAYS_INLINE int
straight (const zdev_direction *direction, size_t count, size_t address)
{
    int type = direction->destination->type;
    if (count < 2)
        return 0;
    if (type == TYPE_ROUTER)
        return address > 0;
    return type != TYPE_STREAM && type != TYPE_XSUB;
}

/*  ----------------------------------------------------------------------
    Send a short message of so many frames on, and its copy. Returns 1 if it went
    straight through, and is to be counted.                                   */

static ALWAYS_INLINE int
short_deliver (zdev_relay *self, zdev_direction *direction, size_t count,
               uint64_t bytes, size_t address, int plain, int captures)
{
    zdev_socket *to = direction->destination;
    zdev_socket *capture = self->capture;
    zdev_msg *first = direction->held.first.frame;
    zdev_msg *last = first + count - 1;
    zdev_msg *copy = direction->copy.first.frame;
    zdev_msg *slot = copy;
    int error;

    if (!plain && !straight (direction, count, address))
        return short_detour (self, direction, last, bytes, 0);
    if (captures) {
        if (direction->has_prefix
        &&  self->zmq.msg_copy (slot++, &direction->prefix))
            return short_detour (self, direction, last, bytes, 1);
        UNROLL
        for (size_t place = 0; place < count; place++)
            if (self->zmq.msg_copy (slot++, first + place))
                return short_detour (self, direction, last, bytes,
                                     (size_t) (slot - copy));
    }

    to->settled = 0;
    UNROLL
    for (size_t place = 0; place < count - 1; place++) {
        error = frame_send (self, first + place, to, FLAG_SNDMORE);
        if (error)
            return short_refused (self, direction, last, bytes, first + place,
                                  error);
    }
    error = frame_send (self, last, to, 0);
    if (error)
        return short_refused (self, direction, last, bytes, last, error);
    if (!captures)
        return 1;

    capture->settled = 0;
    slot = copy;
    if (direction->has_prefix) {
        error = frame_send (self, slot, capture, FLAG_SNDMORE);
        if (error)
            return short_copy_refused (self, direction, count, bytes,
                                       slot + count, slot, error);
        slot++;
    }
    UNROLL
    for (size_t left = count; --left > 0; slot++) {
        error = frame_send (self, slot, capture, FLAG_SNDMORE);
        if (error)
            return short_copy_refused (self, direction, count, bytes,
                                       slot + left, slot, error);
    }
    error = frame_send (self, slot, capture, 0);
    if (error)
        return short_copy_refused (self, direction, count, bytes, slot, slot,
                                   error);
    self->capture_sent++;
    return 1;
}

/*  ----------------------------------------------------------------------
    Send a message of three frames on, and its copy: an envelope and a body is
    what most requests are.                                                   */

APART static int
three_deliver (zdev_relay *self, zdev_direction *direction, uint64_t bytes,
               size_t address)
{
    return short_deliver (self, direction, 3, bytes, address, 0, 1);
}

/*  ----------------------------------------------------------------------
    Relay short messages until one does not go straight through, or the burst is
    spent. Returns 1 or 2 when the direction is free for the next message, 0 when
    it waits or the source has nothing now, or -errno.

    As an unsigned number, what msg_recv returned is INT_MAX or more in two
    cases: it failed, or the frame is longer than an int can say. Neither goes
    on here.                                                                  */

static ALWAYS_INLINE int
turn_short (zdev_relay *self, zdev_direction *direction, int *moved, int plain,
            int captures)
{
    void *source = direction->source->handle;
    zdev_frames *held = &direction->held;
    zdev_msg *first = held->first.frame;
    zdev_msg *end = first + CHUNK_FRAMES - 2;   /*  a copy has a prefix        */
    zdev_msg *one = !plain && held->swap ? first + 1 : first;
    zdev_msg *two = !plain && held->swap ? first : first + 1;
    int left = self->burst - *moved;
    uint64_t messages = 0;
    uint64_t frames = 0;
    uint64_t total = 0;
    int rc;

    for (;;) {
        zdev_msg *last = first;
        rc = self->zmq.msg_recv (one, source, FLAG_DONTWAIT);
        if ((unsigned) rc >= INT_MAX)
            goto any;
        uint64_t bytes = (unsigned) rc;
        size_t address = (unsigned) rc;
        if (!self->zmq.msg_more (one))
            rc = short_deliver (self, direction, 1, bytes, address, plain,
                                captures);
        else {
            rc = self->zmq.msg_recv (two, source, FLAG_DONTWAIT);
            if ((unsigned) rc >= INT_MAX) {
                held->count = 1;
                held->bytes = bytes;
                goto any;
            }
            if (two == first)
                address = (unsigned) rc;
            bytes += (unsigned) rc;
            last = first + 1;
            zdev_msg *slot = two;
            while (self->zmq.msg_more (slot)) {
                slot = ++last;
                rc = self->zmq.msg_recv (slot, source, FLAG_DONTWAIT);
                if ((unsigned) rc >= INT_MAX || slot == end) {
                    held->count = (size_t) (slot - first);
                    held->bytes = bytes;
                    goto any;
                }
                bytes += (unsigned) rc;
            }
            rc = captures && last == first + 2
               ? three_deliver (self, direction, bytes, address)
               : short_deliver (self, direction, (size_t) (last - first) + 1,
                                bytes, address, plain, captures);
        }
        left--;
        if (rc != 1)
            break;
        messages++;
        frames += (size_t) (last - first) + 1;
        total += bytes;
        if (left <= 0)
            break;
    }
    short_count (direction, messages, frames, total);
    *moved = self->burst - left;
    return rc;
any:
    short_count (direction, messages, frames, total);
    *moved = self->burst - left;
    rc = zdev_frames_take (self, held, direction->source, rc);
    return turn_any (self, direction, rc, moved);
}

/*  ----------------------------------------------------------------------
    turn_short, compiled for its three cases: plain, not plain, with copies.  */

APART static int
turn_plain (zdev_relay *self, zdev_direction *direction, int *moved)
{
    return turn_short (self, direction, moved, 1, 0);
}

APART static int
turn_routed (zdev_relay *self, zdev_direction *direction, int *moved)
{
    return turn_short (self, direction, moved, 0, 0);
}

APART static int
turn_captured (zdev_relay *self, zdev_direction *direction, int *moved)
{
    return turn_short (self, direction, moved, is_plain (direction), 1);
}

/*  ----------------------------------------------------------------------
    Relay a burst of short messages, by the case that fits.                   */

static int
turn_by_case (zdev_relay *self, zdev_direction *direction, int *moved)
{
    if (self->capture)
        return turn_captured (self, direction, moved);
    return is_plain (direction) ? turn_plain (self, direction, moved)
                                : turn_routed (self, direction, moved);
}

#endif

/*  ----------------------------------------------------------------------
    Relay a burst at most. Returns how many messages moved.                   */

int
zdev_direction_turn (zdev_relay *self, zdev_direction *direction)
{
    zdev_frames *held = &direction->held;
    int moved = 0;
    int rc = 1;

    if (direction->stage != STAGE_TAKING) {
        zdev_stage stage = direction->stage;
        rc = zdev_direction_retry (self, direction);
        if (rc < 0)
            return rc;
        moved += direction->stage != stage;
    }
    if (direction->source->settled || direction->shut)
        return moved;
    while (rc > 0 && moved < self->burst) {
#ifndef ZDEV_NO_SHORT_WAY
        if (direction->short_way && held->count == 0 && !self->capture_dead) {
            rc = turn_by_case (self, direction, &moved);
            continue;
        }
#endif
        rc = zdev_frames_receive (self, held, direction->source);
        if (rc == 1 && direction->source->type == TYPE_XPUB)
            zdev_count_subscription (self, direction->source, held);
        rc = turn_any (self, direction, rc, &moved);
    }
    return rc < 0 ? rc : moved;
}
