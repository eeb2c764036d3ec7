/*  direction.c: what becomes of one message.

    A message that was received whole is entered, then delivered: sent on to the
    destination, then copied to the capture socket. What a socket refuses stays
    parked in its direction, and nothing more is received there until it is
    gone; in a direction that drops, it overflows instead. What can go nowhere
    is discarded and counted.                                                 */

#include "internal.h"

#include <string.h>

/*  Bytes of the longest topic that an XSUB is given. libzmq's recursion takes 81
    bytes of stack for each where it was built for pyzmq 27, and over 130 for
    pyzmq 25.1 (measured, x86-64): 4,000 bytes overflow a stack of 512 KiB there,
    which is what macOS gives a thread of libzmq's. 2,048 take half of it.     */
enum { MAX_SUBSCRIPTION = 2048 };

/*  ----------------------------------------------------------------------
    Enter a message that is whole: from now on it is held, and counts as
    received.                                                                 */

void
zdev_direction_enter (zdev_direction *direction)
{
    direction->stage = STAGE_HELD;
}

/*  ----------------------------------------------------------------------
    Can the destination's type route a message of so many frames, the first of
    which, as sent on, has this size? A ROUTER needs an address, which is never
    empty, and something to send there; to a STREAM a message is an address and
    one frame, and anything else would shift the meaning of all that follow.  */

static inline int
routable (const zdev_direction *direction, size_t count, size_t address)
{
    switch (direction->destination->type) {
        case TYPE_ROUTER:
            return count >= 2 && address > 0;
        case TYPE_STREAM:
            return count == 2 && address > 0;
        default:
            return count >= 2 || !direction->held.swap;
    }
}

/*  ----------------------------------------------------------------------
    Does a frame make or cancel a subscription? By its first byte, or as a
    command of ZMTP, which libzmq lets through.                               */

static int
subscribes (zdev_relay *self, zdev_msg *frame)
{
    size_t size = self->zmq.msg_size (frame);
    const unsigned char *data = self->zmq.msg_data (frame);
    return (size >= 1 && *data <= 1)
        || (size >= 7 && memcmp (data, "\6CANCEL", 7) == 0)
        || (size >= 10 && memcmp (data, "\11SUBSCRIBE", 10) == 0);
}

/*  ----------------------------------------------------------------------
    Would it harm the destination? An XSUB keeps subscriptions in a tree with a
    level for each byte, which libzmq descends by recursion: it overflows the
    stack for one that is long enough, which any subscriber behind an XPUB can
    send. With ZMQ_ONLY_FIRST_SUBSCRIBE, frames behind a first one that
    subscribes to nothing are data.
    test_a_subscription_that_would_crash_libzmq (tests/relay/test_security.py)
    sends one.                                                                */

static int
harmful (zdev_relay *self, zdev_direction *direction)
{
    zdev_frames *held = &direction->held;
    zdev_chunk *chunk = &held->first;
    if (direction->destination->type != TYPE_XSUB
    ||  held->bytes <= 1 + MAX_SUBSCRIPTION
    ||  (self->only_first && !subscribes (self, &chunk->frame[0])))
        return 0;
    for (size_t place = 0; place < held->count; place++) {
        if (place > 0 && place % CHUNK_FRAMES == 0)
            chunk = chunk->next;
        zdev_msg *frame = &chunk->frame[place % CHUNK_FRAMES];
        if (self->zmq.msg_size (frame) > 1 + MAX_SUBSCRIPTION
        &&  subscribes (self, frame))
            return 1;
    }
    return 0;
}

/*  ----------------------------------------------------------------------
    Copy `[prefix, frames as sent on]`.                                       */

static void
copy_make (zdev_relay *self, zdev_direction *direction)
{
    zdev_frames *copy = &direction->copy;
    zdev_chunk *chunk = &direction->held.first;
    size_t count = direction->held.count;

    direction->copied = 1;
    if (self->capture_dead)
        return;
    int whole = !direction->has_prefix
             || zdev_frames_copy (self, copy, &direction->prefix);
    for (size_t done = 0; whole && done < count; done++) {
        if (done > 0 && done % CHUNK_FRAMES == 0)
            chunk = chunk->next;
        whole = zdev_frames_copy (self, copy,
                                  &chunk->frame[done % CHUNK_FRAMES]);
    }
    if (!whole)
        zdev_frames_empty (self, copy);
}

/*  ----------------------------------------------------------------------
    Act on what became of the copy when the capture socket was given it.
    Returns 1 when the direction is free, 0 when it waits for the capture.    */

int
zdev_direction_copy_conclude (zdev_relay *self, zdev_direction *direction,
                              int rc)
{
    if (rc < 0 && self->capture_drop)
        self->capture_dead = 1;
    else
    if (rc < 0 || (rc == SEND_REFUSED && !self->capture_drop))
        return rc;
    if (rc == SEND_DONE)
        self->capture_sent++;
    else {
        self->capture_dropped++;
        zdev_frames_empty (self, &direction->copy);
    }
    direction->copied = 0;
    direction->stage = STAGE_TAKING;
    return 1;
}

/*  ----------------------------------------------------------------------
    Give the capture socket its copy; returns as zdev_direction_copy_conclude
    does.                                                                     */

static int
copy_send (zdev_relay *self, zdev_direction *direction)
{
    zdev_frames *copy = &direction->copy;
    int rc = SEND_LOST;
    if (copy->count > 0 && !self->capture_dead)
        rc = zdev_frames_send (self, copy, self->capture);
    return zdev_direction_copy_conclude (self, direction, rc);
}

/*  ----------------------------------------------------------------------
    The message, which had so many frames and bytes, goes nowhere, and counts
    there. To a REP it was a request, and it takes no other before it has
    replied: with an empty frame, since nobody else will. Returns 1 or -errno. */

static int
discard (zdev_relay *self, zdev_direction *direction, uint64_t *counter,
         uint64_t frames, uint64_t bytes)
{
    zdev_socket *source = direction->source;

    (*counter)++;
    direction->outcome.frames_lost += frames;
    direction->outcome.bytes_lost += bytes;
    zdev_frames_empty (self, &direction->held);
    if (direction->copied) {
        zdev_frames_empty (self, &direction->copy);
        direction->copied = 0;
    }
    direction->stage = STAGE_TAKING;
    if (source->type == TYPE_REP) {
        source->settled = 0;
        int error = frame_send (self, &direction->held.first.frame[0], source,
                                0);
        if (error && error != ZDEV_EFSM && !zdev_peer_error (error))
            return -error;
    }
    return 1;
}

/*  ----------------------------------------------------------------------
    The destination has refused the message, which waits for nobody: try once
    more, now that all commands of the socket are processed. A send leaves them
    for a millisecond (it is throttled), and with them the room that its peer has
    made; without this, a peer that keeps pace loses messages all the same.
    Returns as zdev_frames_send does.                                         */

SELDOM static int
send_again (zdev_relay *self, zdev_direction *direction)
{
    int events = zdev_socket_events (self, direction->destination);
    if (events < 0)
        return events;
    return zdev_frames_send (self, &direction->held, direction->destination);
}

/*  ----------------------------------------------------------------------
    Act on what became of the message, which had so many frames and bytes, when
    it was sent. Returns 1 when the direction is free for the next one, 0 when
    it must wait.                                                             */

int
zdev_direction_conclude (zdev_relay *self, zdev_direction *direction, int rc,
                         uint64_t frames, uint64_t bytes)
{
    zdev_outcome *outcome = &direction->outcome;
    if (rc == SEND_REFUSED && direction->drop) {
        rc = send_again (self, direction);
        if (rc == SEND_REFUSED) {
            self->news = 1;
            return discard (self, direction, &outcome->overflowed, frames,
                            bytes);
        }
    }
    switch (rc) {
        case SEND_DONE:
            break;
        case SEND_REFUSED:
            return 0;
        case SEND_UNROUTABLE:
            return discard (self, direction, &outcome->unroutable, frames,
                            bytes);
        case SEND_LOST:
            return discard (self, direction, &outcome->dropped, frames, bytes);
        default:
            /*  some of its frames were sent, and none is left                */
            if (direction->held.count == 0)
                discard (self, direction, &outcome->dropped, frames, bytes);
            return rc;
    }
    outcome->messages_sent++;
    outcome->frames_sent += frames;
    outcome->bytes_sent += bytes;
    direction->stage = self->capture ? STAGE_COPY : STAGE_TAKING;
    return self->capture ? copy_send (self, direction) : 1;
}

/*  ----------------------------------------------------------------------
    Take what was entered a step further; returns as zdev_direction_conclude
    does.                                                                     */

int
zdev_direction_deliver (zdev_relay *self, zdev_direction *direction)
{
    zdev_outcome *outcome = &direction->outcome;
    zdev_frames *held = &direction->held;
    uint64_t frames = held->count;
    uint64_t bytes = held->bytes;

    if (direction->stage == STAGE_COPY)
        return copy_send (self, direction);
    if (!direction->destination || held->short_of_memory)
        return discard (self, direction, &outcome->dropped, frames, bytes);
    if (!routable (direction, held->count,
                   self->zmq.msg_size (&held->first.frame[0])))
        return discard (self, direction, &outcome->unroutable, frames, bytes);
    if (harmful (self, direction))
        return discard (self, direction, &outcome->dropped, frames, bytes);
    if (self->capture && !direction->copied)
        copy_make (self, direction);
    int rc = zdev_frames_send (self, held, direction->destination);
    return zdev_direction_conclude (self, direction, rc, frames, bytes);
}

/*  ----------------------------------------------------------------------
    The socket that a parked direction waits for; NULL if it is not parked.   */

zdev_socket *
zdev_direction_awaits (const zdev_relay *self, const zdev_direction *direction)
{
    switch (direction->stage) {
        case STAGE_HELD:
            return direction->destination;
        case STAGE_COPY:
            return self->capture;
        default:
            return NULL;
    }
}

/*  ----------------------------------------------------------------------
    Take note of whether a direction still waits, and since when. The caller is
    wanted when that has been long, and when it is over after all.            */

static void
note_wait (zdev_relay *self, zdev_direction *direction, int waits)
{
    if (!waits) {
        self->news |= direction->long_wait;
        direction->long_wait = 0;
        direction->waits_since = 0;
        return;
    }
    if (self->long_wait == 0)
        return;
    uint64_t now = self->zmq.clock ();
    if (direction->waits_since == 0)
        direction->waits_since = now;
    else
    if (!direction->long_wait
    &&  now - direction->waits_since >= (uint64_t) self->long_wait)
        self->news = direction->long_wait = 1;
}

/*  ----------------------------------------------------------------------
    Try what is parked again. Returns 1 when the direction is free, else 0.

    A failing send may leave commands unprocessed, so the events are asked for
    first. Some sockets always show POLLOUT (XPUB, ROUTER); where it proves to
    mean nothing, the direction is doubtful and waits for the descriptor.
    ROUTER_MANDATORY shows none while no peer has room, though the very one that
    the message is for may be gone: only a send tells.                        */

int
zdev_direction_retry (zdev_relay *self, zdev_direction *direction)
{
    zdev_stage stage = direction->stage;
    zdev_socket *socket = zdev_direction_awaits (self, direction);
    int events = zdev_socket_events (self, socket);
    if (events < 0)
        return events;
    int shown = (events & EVENT_OUT) != 0;
    int rc = 0;
    if (shown || socket->type == TYPE_ROUTER) {
        rc = zdev_direction_deliver (self, direction);
        direction->doubtful = shown && rc == 0 && direction->stage == stage;
    }
    if (rc == 1)
        direction->source->settled = 0;
    note_wait (self, direction, rc == 0 && direction->stage == stage);
    return rc;
}
