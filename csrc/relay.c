/*  relay.c: one direction of a relay.

    A message is taken whole, then sent on, then copied to the capture socket.
    Every receive and send is DONTWAIT; what a socket refuses stays parked in
    its direction. Functions return 0 or more for success and -errno for a
    failure that ends the relay.                                              */

#include "relay.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

/*  ----------------------------------------------------------------------
    Initialise the messages of a chunk.                                       */

static void
chunk_open (zdev_relay *self, zdev_chunk *chunk)
{
    chunk->next = NULL;
    for (int place = 0; place < CHUNK_FRAMES; place++)
        self->zmq.msg_init (&chunk->frame[place]);
}

/*  ----------------------------------------------------------------------
    Close the messages of a chunk.                                            */

static void
chunk_close (zdev_relay *self, zdev_chunk *chunk)
{
    for (int place = 0; place < CHUNK_FRAMES; place++)
        self->zmq.msg_close (&chunk->frame[place]);
}

/*  ----------------------------------------------------------------------
    Free the chunks behind this one.                                          */

static void
chunk_cut (zdev_relay *self, zdev_chunk *chunk)
{
    zdev_chunk *next = chunk->next;
    chunk->next = NULL;
    while (next) {
        zdev_chunk *after = next->next;
        chunk_close (self, next);
        free (next);
        next = after;
    }
}

/*  ----------------------------------------------------------------------
    Forget the message; its frames were sent or closed.                       */

static void
frames_reset (zdev_relay *self, zdev_frames *frames)
{
    if (frames->first.next)
        chunk_cut (self, &frames->first);
    frames->last = &frames->first;
    frames->count = 0;
    frames->bytes = 0;
    frames->short_of_memory = 0;
}

/*  ----------------------------------------------------------------------
    Make an empty list of frames.                                             */

void
zdev_frames_open (zdev_relay *self, zdev_frames *frames)
{
    chunk_open (self, &frames->first);
    frames_reset (self, frames);
}

/*  ----------------------------------------------------------------------
    Close every frame, for good.                                              */

void
zdev_frames_close (zdev_relay *self, zdev_frames *frames)
{
    chunk_cut (self, &frames->first);
    chunk_close (self, &frames->first);
}

/*  ----------------------------------------------------------------------
    Release what a message holds and leave it initialised.                    */

static void
msg_empty (zdev_relay *self, zdev_msg *message)
{
    self->zmq.msg_close (message);
    self->zmq.msg_init (message);
}

/*  ----------------------------------------------------------------------
    Discard the message.                                                      */

void
zdev_frames_empty (zdev_relay *self, zdev_frames *frames)
{
    size_t used = frames->count < CHUNK_FRAMES ? frames->count : CHUNK_FRAMES;
    for (size_t place = 0; place < used; place++)
        msg_empty (self, &frames->first.frame[place]);
    frames_reset (self, frames);
}

/*  ----------------------------------------------------------------------
    The slot of the next frame.                                               */

static inline zdev_msg *
frames_slot (zdev_frames *frames)
{
    return &frames->last->frame[frames->count % CHUNK_FRAMES];
}

/*  ----------------------------------------------------------------------
    Add a chunk and return its first slot, NULL when memory is short.         */

static zdev_msg *
frames_grow (zdev_relay *self, zdev_frames *frames)
{
    zdev_chunk *chunk = malloc (sizeof *chunk);
    if (!chunk)
        return NULL;
    chunk_open (self, chunk);
    frames->last->next = chunk;
    frames->last = chunk;
    return chunk->frame;
}

/*  ----------------------------------------------------------------------
    Take in the frames of one message, or the rest of them; rc is what
    msg_recv returned for the next slot. Returns 1 when the message is whole, 0
    when the source has nothing (more) now.

    libzmq delivers a message whole, so EAGAIN after the first frame is not to
    be expected; should it come, the frames wait here for the rest. When memory
    for one more frame is short, the message is read to its end and not kept:
    a peer that sends a million frames must not end the device.               */

static int
frames_take (zdev_relay *self, zdev_frames *frames, zdev_socket *source, int rc)
{
    zdev_msg *slot = frames_slot (frames);
    zdev_msg *end = frames->last->frame + CHUNK_FRAMES;
    size_t count = frames->count;
    uint64_t bytes = frames->bytes;

    for (;;) {
        if (rc >= 0) {
            /*  zmq_msg_recv(3) gives the size, but no more than an int holds  */
            bytes += rc < INT_MAX ? (size_t) rc : self->zmq.msg_size (slot);
            count++;
            if (!self->zmq.msg_more (slot)) {
                rc = 1;
                break;
            }
            if (++slot == end) {
                slot = frames->short_of_memory ? NULL
                                               : frames_grow (self, frames);
                if (!slot) {
                    frames->count = count;
                    zdev_frames_empty (self, frames);
                    frames->short_of_memory = 1;
                    slot = frames->first.frame;
                }
                end = slot + CHUNK_FRAMES;
            }
        }
        else {
            rc = -self->zmq.get_errno ();
            if (rc != -EINTR)
                break;
        }
        rc = self->zmq.msg_recv (slot, source->handle, FLAG_DONTWAIT);
    }
    frames->count = count;
    frames->bytes = bytes;
    if (rc == -EAGAIN)
        source->settled = 1;
    /*  EFSM: it is not the turn of this REQ or REP                            */
    return rc == -EAGAIN || rc == -ZDEV_EFSM ? 0 : rc;
}

/*  ----------------------------------------------------------------------
    Receive one message, or the rest of it; returns as frames_take does.      */

int
zdev_frames_receive (zdev_relay *self, zdev_frames *frames, zdev_socket *source)
{
    int rc = self->zmq.msg_recv (frames_slot (frames), source->handle,
                                 FLAG_DONTWAIT);
    return frames_take (self, frames, source, rc);
}

/*  ----------------------------------------------------------------------
    Send one frame, again if a signal came in between; 0 or the errno.        */

static int
frame_send (zdev_relay *self, zdev_msg *frame, zdev_socket *to, int flags)
{
    for (;;) {
        if (self->zmq.msg_send (frame, to->handle, flags | FLAG_DONTWAIT) >= 0)
            return 0;
        int error = self->zmq.get_errno ();
        if (error != EINTR)
            return error;
    }
}

/*  ----------------------------------------------------------------------
    Does the error speak of the peer, not of the socket?                      */

static inline int
peer_error (int error)
{
    return error == EAGAIN || error == EHOSTUNREACH;
}

/*  ----------------------------------------------------------------------
    The rest of a message whose peer vanished: `left` frames, from slot on.

    PAIR: the next frame would reach the next peer as a message of its own, so
    the rest is discarded. The others wait for the message's end: they swallow
    what comes until then, and would swallow the next message if it was never
    shown to them.                                                            */

static int
frames_send_lost (zdev_relay *self, zdev_chunk *chunk, zdev_msg *slot,
                  size_t left, zdev_socket *to, int error)
{
    int failed = peer_error (error) ? 0 : error;
    msg_empty (self, slot);
    while (--left > 0) {
        if (++slot == chunk->frame + CHUNK_FRAMES) {
            chunk = chunk->next;
            slot = chunk->frame;
        }
        if (to->type != TYPE_PAIR && !failed) {
            error = frame_send (self, slot, to, left > 1 ? FLAG_SNDMORE : 0);
            if (error && !peer_error (error))
                failed = error;
        }
        msg_empty (self, slot);
    }
    return failed ? -failed : SEND_LOST;
}

/*  ----------------------------------------------------------------------
    What it means that the first frame was not sent. Out of turn, a REQ will
    take it later; a REP never: what nobody asked for must not become the reply
    to the next request.                                                      */

static inline int
refusal (const zdev_socket *to, int error)
{
    if (error == EAGAIN || (error == ZDEV_EFSM && to->type != TYPE_REP))
        return SEND_REFUSED;
    if (error == EHOSTUNREACH || error == ZDEV_EFSM)
        return SEND_UNROUTABLE;
    return -error;
}

/*  ----------------------------------------------------------------------
    Send the frames as one message; with swap, the second before the first.
    Unless it is SEND_REFUSED or fails at the first frame, none is left.

    The high-water mark counts messages, so only the first frame can meet it;
    after that only a vanishing peer refuses a frame.                         */

int
zdev_frames_send (zdev_relay *self, zdev_frames *frames, zdev_socket *to,
                  int swap)
{
    zdev_chunk *chunk = &frames->first;
    zdev_msg *slot = chunk->frame;
    zdev_msg *end = slot + CHUNK_FRAMES;
    size_t left = frames->count;
    int flags = left > 1 ? FLAG_SNDMORE : 0;
    int rc = SEND_DONE;

    to->settled = 0;
    int error = frame_send (self, swap ? slot + 1 : slot, to, flags);
    if (error)
        return refusal (to, error);
    if (swap) {
        flags = --left > 1 ? FLAG_SNDMORE : 0;
        error = frame_send (self, slot, to, flags);
        if (error) {
            msg_empty (self, slot);
            rc = frames_send_lost (self, chunk, slot + 1, left, to, error);
            left = 1;
        }
        slot++;
    }
    while (--left > 0) {
        if (++slot == end) {
            chunk = chunk->next;
            slot = chunk->frame;
            end = slot + CHUNK_FRAMES;
        }
        if (left == 1)
            flags = 0;
        error = frame_send (self, slot, to, flags);
        if (error) {
            rc = frames_send_lost (self, chunk, slot, left, to, error);
            break;
        }
    }
    frames_reset (self, frames);
    return rc;
}

/*  ----------------------------------------------------------------------
    Can the destination's type route this message at all? A ROUTER needs an
    address, which is never empty, and something to send there; to a STREAM a
    message is an address and one frame, and anything else would shift the
    meaning of all that follow.                                               */

static inline int
routable (const zdev_relay *self, const zdev_direction *direction)
{
    const zdev_frames *held = &direction->held;
    int type = direction->destination->type;
    if (type == TYPE_ROUTER || type == TYPE_STREAM) {
        const zdev_msg *address = &held->first.frame[direction->swap ? 1 : 0];
        return (type == TYPE_ROUTER ? held->count >= 2 : held->count == 2)
            && self->zmq.msg_size (address) > 0;
    }
    return held->count >= 2 || !direction->swap;
}

/*  ----------------------------------------------------------------------
    Copy `[prefix, frames as sent on]`. zmq_msg_copy(3) shares large frames.  */

static void
copy_make (zdev_relay *self, zdev_direction *direction)
{
    zdev_frames *copy = &direction->copy;
    zdev_chunk *chunk = &direction->held.first;
    zdev_msg *from = chunk->frame;
    zdev_msg *from_end = from + CHUNK_FRAMES;
    zdev_msg *to = copy->first.frame;
    zdev_msg *to_end = to + CHUNK_FRAMES;
    size_t count = direction->held.count;
    int whole = 1;

    direction->copied = 1;
    if (self->capture_dead)
        return;
    copy->count = count + (direction->has_prefix ? 1 : 0);
    if (direction->has_prefix)
        whole = self->zmq.msg_copy (to++, &direction->prefix) == 0;
    for (size_t done = 0; whole && done < count; done++) {
        if (from == from_end) {
            chunk = chunk->next;
            from = chunk->frame;
            from_end = from + CHUNK_FRAMES;
        }
        if (to == to_end) {
            to = frames_grow (self, copy);
            if (!to) {
                whole = 0;
                break;
            }
            to_end = to + CHUNK_FRAMES;
        }
        zdev_msg *at = from++;
        if (direction->swap && done < 2)
            at = done == 0 ? at + 1 : at - 1;
        whole = self->zmq.msg_copy (to++, at) == 0;
    }
    if (!whole)
        zdev_frames_empty (self, copy);
}

/*  ----------------------------------------------------------------------
    Act on what became of the copy when the capture socket was given it.
    Returns 1 when the direction is free, 0 when it waits for the capture.    */

static int
copy_conclude (zdev_relay *self, zdev_direction *direction, int rc)
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
    Give the capture socket its copy; returns as copy_conclude does.          */

static int
copy_send (zdev_relay *self, zdev_direction *direction)
{
    zdev_frames *copy = &direction->copy;
    int rc = SEND_LOST;
    if (copy->count > 0 && !self->capture_dead)
        rc = zdev_frames_send (self, copy, self->capture, 0);
    return copy_conclude (self, direction, rc);
}

/*  ----------------------------------------------------------------------
    The held message goes nowhere. To a REP it was a request, and it takes no
    other before it has replied: with an empty frame, since nobody else will.
    Returns 1, or -errno.                                                     */

static int
discard (zdev_relay *self, zdev_direction *direction, uint64_t *counter)
{
    zdev_socket *source = direction->source;

    (*counter)++;
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
        if (error && error != ZDEV_EFSM && !peer_error (error))
            return -error;
    }
    return 1;
}

/*  ----------------------------------------------------------------------
    Act on what became of the held message when it was sent. Returns 1 when the
    direction is free for the next one, 0 when it must wait.                  */

static int
conclude (zdev_relay *self, zdev_direction *direction, int rc, uint64_t frames,
          uint64_t bytes)
{
    zdev_counters *counters = &direction->counters;
    switch (rc) {
        case SEND_DONE:
            break;
        case SEND_REFUSED:
            return 0;
        case SEND_UNROUTABLE:
            return discard (self, direction, &counters->unroutable);
        case SEND_LOST:
            return discard (self, direction, &counters->dropped);
        default:
            if (direction->held.count == 0)
                discard (self, direction, &counters->dropped);
            return rc;
    }
    counters->messages_sent++;
    counters->frames_sent += frames;
    counters->bytes_sent += bytes;
    direction->stage = self->capture ? STAGE_COPY : STAGE_TAKING;
    return self->capture ? copy_send (self, direction) : 1;
}

/*  ----------------------------------------------------------------------
    Take what is held a step further; returns as conclude does.               */

static int
deliver (zdev_relay *self, zdev_direction *direction)
{
    zdev_counters *counters = &direction->counters;
    zdev_frames *held = &direction->held;

    if (direction->stage == STAGE_COPY)
        return copy_send (self, direction);
    if (!direction->destination || held->short_of_memory)
        return discard (self, direction, &counters->dropped);
    if (!routable (self, direction))
        return discard (self, direction, &counters->unroutable);
    if (self->capture && !direction->copied)
        copy_make (self, direction);

    uint64_t frames = held->count;
    uint64_t bytes = held->bytes;
    int rc = zdev_frames_send (self, held, direction->destination,
                               direction->swap);
    return conclude (self, direction, rc, frames, bytes);
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
    if (!shown && socket->type != TYPE_ROUTER)
        return 0;
    int rc = deliver (self, direction);
    direction->doubtful = shown && rc == 0 && direction->stage == stage;
    if (rc == 1)
        direction->source->settled = 0;
    return rc;
}

/*  ----------------------------------------------------------------------
    Enter a message as received, and as held.                                 */

static inline void
enter (zdev_direction *direction, uint64_t frames, uint64_t bytes)
{
    direction->counters.messages_received++;
    direction->counters.frames_received += frames;
    direction->counters.bytes_received += bytes;
    direction->stage = STAGE_HELD;
}

/*  ----------------------------------------------------------------------
    Copy a single frame, behind its prefix; 1, or 0 when memory is short.     */

static inline int
single_copy (zdev_relay *self, zdev_direction *direction)
{
    zdev_msg *slot = direction->copy.first.frame;
    if ((direction->has_prefix
         && self->zmq.msg_copy (slot++, &direction->prefix))
    ||  self->zmq.msg_copy (slot, &direction->held.first.frame[0])) {
        direction->copy.count = 2;
        zdev_frames_empty (self, &direction->copy);
        direction->copied = 1;
        return 0;
    }
    return 1;
}

/*  ----------------------------------------------------------------------
    Give the capture socket the copy of a single frame that was sent on;
    returns as copy_conclude does.                                            */

static inline int
single_copy_send (zdev_relay *self, zdev_direction *direction)
{
    zdev_frames *copy = &direction->copy;
    zdev_msg *slot = copy->first.frame;
    zdev_socket *to = self->capture;
    int begun = 0;
    int error = 0;
    int rc;

    to->settled = 0;
    if (direction->has_prefix) {
        error = frame_send (self, slot++, to, FLAG_SNDMORE);
        begun = !error;
    }
    if (!error)
        error = frame_send (self, slot, to, 0);
    if (!error) {
        self->capture_sent++;
        return 1;
    }
    direction->copied = 1;
    direction->stage = STAGE_COPY;
    if (begun)
        rc = frames_send_lost (self, &copy->first, slot, 1, to, error);
    else {
        copy->count = direction->has_prefix ? 2 : 1;
        rc = refusal (to, error);
    }
    return copy_conclude (self, direction, rc);
}

/*  ----------------------------------------------------------------------
    Go on with a message of which msg_recv has returned rc, whatever it is.
    Returns 1 when the direction is free for the next one, 0 when it waits or
    the source has nothing (more) now.                                        */

static int
turn_any (zdev_relay *self, zdev_direction *direction, int rc, int *moved)
{
    zdev_frames *held = &direction->held;
    rc = frames_take (self, held, direction->source, rc);
    if (rc != 1)
        return rc;
    (*moved)++;
    enter (direction, held->count, held->bytes);
    return deliver (self, direction);
}

/*  ----------------------------------------------------------------------
    The destination did not take the first of so many frames. Returns as
    turn_any does.                                                            */

static int
turn_refused (zdev_relay *self, zdev_direction *direction, int error,
              size_t count, uint64_t bytes)
{
    direction->held.count = count;
    direction->held.bytes = bytes;
    enter (direction, count, bytes);
    return conclude (self, direction, refusal (direction->destination, error),
                     count, bytes);
}

/*  ----------------------------------------------------------------------
    Relay a message of a few frames, the first of which was received, straight
    from one loop into another. Returns as turn_any does.                     */

static int
turn_few (zdev_relay *self, zdev_direction *direction, uint64_t bytes,
          int *moved)
{
    zdev_frames *held = &direction->held;
    zdev_socket *to = direction->destination;
    void *source = direction->source->handle;
    zdev_msg *slot = held->first.frame;
    zdev_msg *last = slot + CHUNK_FRAMES - 1;
    int rc;

    do {
        rc = self->zmq.msg_recv (++slot, source, FLAG_DONTWAIT);
        if ((unsigned) rc >= INT_MAX || slot == last) {
            held->count = (size_t) (slot - held->first.frame);
            held->bytes = bytes;
            return turn_any (self, direction, rc, moved);
        }
        bytes += (unsigned) rc;
    } while (self->zmq.msg_more (slot));

    last = slot;
    slot = held->first.frame;
    size_t count = (size_t) (last - slot) + 1;
    (*moved)++;
    to->settled = 0;
    int error = frame_send (self, slot, to, FLAG_SNDMORE);
    if (error)
        return turn_refused (self, direction, error, count, bytes);
    while (++slot < last) {
        error = frame_send (self, slot, to, FLAG_SNDMORE);
        if (error)
            break;
    }
    if (!error)
        error = frame_send (self, slot, to, 0);
    if (error) {
        rc = frames_send_lost (self, &held->first, slot,
                               (size_t) (last - slot) + 1, to, error);
        enter (direction, count, bytes);
        return conclude (self, direction, rc, count, bytes);
    }
    zdev_counters *counters = &direction->counters;
    counters->messages_received++;
    counters->frames_received += count;
    counters->bytes_received += bytes;
    counters->messages_sent++;
    counters->frames_sent += count;
    counters->bytes_sent += bytes;
    return 1;
}

/*  ----------------------------------------------------------------------
    Relay a burst at most. Returns how many messages moved.

    A message whose destination needs no look at its address goes straight from
    the one call into the other, if it is a single frame, or a few without a
    copy: bookkeeping would cost as much as the calls themselves.             */

int
zdev_direction_turn (zdev_relay *self, zdev_direction *direction)
{
    zdev_socket *source = direction->source;
    zdev_socket *to = direction->destination;
    zdev_frames *held = &direction->held;
    zdev_counters *counters = &direction->counters;
    uint64_t singles = 0;
    uint64_t bytes = 0;
    int moved = 0;
    int rc = 1;

    if (direction->stage != STAGE_TAKING) {
        zdev_stage stage = direction->stage;
        rc = zdev_direction_retry (self, direction);
        if (rc < 0)
            return rc;
        moved += direction->stage != stage;
        if (rc == 0)
            return moved;
    }
    if (source->settled)
        return moved;
    int captures = self->capture != NULL;
    int straight = direction->plain && held->count == 0 && !self->capture_dead;
    zdev_msg *slot = frames_slot (held);
    while (moved < self->burst) {
        rc = self->zmq.msg_recv (slot, source->handle, FLAG_DONTWAIT);
        if (straight && (unsigned) rc < INT_MAX) {
            int more = self->zmq.msg_more (slot);
            if (more && !captures)
                rc = turn_few (self, direction, (unsigned) rc, &moved);
            else
            if (more || (captures && !single_copy (self, direction)))
                rc = turn_any (self, direction, rc, &moved);
            else {
                moved++;
                to->settled = 0;
                int error = frame_send (self, slot, to, 0);
                if (!error) {
                    singles++;
                    bytes += (unsigned) rc;
                    rc = 1;
                    if (!captures)
                        continue;
                    rc = single_copy_send (self, direction);
                }
                else {
                    direction->copied = captures;
                    if (captures)
                        direction->copy.count = direction->has_prefix ? 2 : 1;
                    rc = turn_refused (self, direction, error, 1,
                                       (unsigned) rc);
                }
            }
            straight = !self->capture_dead;
        }
        else {
            rc = turn_any (self, direction, rc, &moved);
            straight = direction->plain && !self->capture_dead;
            slot = held->first.frame;
        }
        if (rc != 1)
            break;
    }
    counters->messages_received += singles;
    counters->frames_received += singles;
    counters->bytes_received += bytes;
    counters->messages_sent += singles;
    counters->frames_sent += singles;
    counters->bytes_sent += bytes;
    return rc < 0 ? rc : moved;
}
