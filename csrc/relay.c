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
    frames->total = 0;
    frames->bytes = 0;
    frames->head[0] = frames->head[1] = 0;
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
    Make room for the frame after the one in the current slot, 0 when memory
    is short.                                                                 */

static int
frames_grow (zdev_relay *self, zdev_frames *frames)
{
    if ((frames->count + 1) % CHUNK_FRAMES == 0) {
        zdev_chunk *chunk = malloc (sizeof *chunk);
        if (!chunk)
            return 0;
        chunk_open (self, chunk);
        frames->last->next = chunk;
        frames->last = chunk;
    }
    frames->count++;
    return 1;
}

/*  ----------------------------------------------------------------------
    The slot of the next frame.                                               */

static inline zdev_msg *
frames_slot (zdev_frames *frames)
{
    return &frames->last->frame[frames->count % CHUNK_FRAMES];
}

/*  ----------------------------------------------------------------------
    Add an empty frame and return it, NULL when memory is short.              */

zdev_msg *
zdev_frames_add (zdev_relay *self, zdev_frames *frames)
{
    zdev_msg *slot = frames_slot (frames);
    return frames_grow (self, frames) ? slot : NULL;
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
    for (;;) {
        zdev_msg *frame = frames_slot (frames);
        if (rc >= 0) {
            /*  zmq_msg_recv(3) gives the size, but no more than an int holds  */
            size_t size = rc < INT_MAX ? (size_t) rc
                                       : self->zmq.msg_size (frame);
            if (frames->total < 2)
                frames->head[frames->total] = size;
            frames->total++;
            frames->bytes += size;

            if (!self->zmq.msg_more (frame)) {
                if (!frames->short_of_memory)
                    frames->count++;
                return 1;
            }
            if (!frames->short_of_memory && !frames_grow (self, frames)) {
                size_t total = frames->total;
                uint64_t bytes = frames->bytes;
                frames->count++;
                zdev_frames_empty (self, frames);
                frames->total = total;
                frames->bytes = bytes;
                frames->short_of_memory = 1;
            }
        }
        else {
            int error = self->zmq.get_errno ();
            if (error == EAGAIN) {
                source->settled = 1;
                return 0;
            }
            if (error == ZDEV_EFSM)     /*  REQ, REP: not its turn             */
                return 0;
            if (error != EINTR)
                return -error;
        }
        rc = self->zmq.msg_recv (frames_slot (frames), source->handle,
                                 FLAG_DONTWAIT);
    }
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
    The rest of a message whose peer vanished after `sent` of its frames.

    PAIR: the next frame would reach the next peer as a message of its own, so
    the rest is discarded. The others wait for the message's end: they swallow
    what comes until then, and would swallow the next message if it was never
    shown to them.                                                            */

static int
frames_send_lost (zdev_relay *self, zdev_chunk *chunk, size_t place,
                  size_t left, zdev_socket *to, int error)
{
    int failed = peer_error (error) ? 0 : error;
    msg_empty (self, &chunk->frame[place]);
    while (--left > 0) {
        if (++place == CHUNK_FRAMES) {
            chunk = chunk->next;
            place = 0;
        }
        zdev_msg *frame = &chunk->frame[place];
        if (to->type != TYPE_PAIR && !failed) {
            error = frame_send (self, frame, to, left > 1 ? FLAG_SNDMORE : 0);
            if (error && !peer_error (error))
                failed = error;
        }
        msg_empty (self, frame);
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
    size_t count = frames->count;
    zdev_chunk *chunk = &frames->first;
    size_t at = swap ? 1 : 0;

    to->settled = 0;
    int error = frame_send (self, &chunk->frame[at], to,
                            count > 1 ? FLAG_SNDMORE : 0);
    if (error)
        return refusal (to, error);
    int rc = SEND_DONE;
    size_t place = 0;
    for (size_t sent = 1; sent < count; sent++) {
        if (++place == CHUNK_FRAMES) {
            chunk = chunk->next;
            place = 0;
        }
        at = swap && sent == 1 ? 0 : place;
        error = frame_send (self, &chunk->frame[at], to,
                            sent + 1 < count ? FLAG_SNDMORE : 0);
        if (error) {
            if (at != place) {
                /*  the first frame stands in the place of the second          */
                msg_empty (self, &chunk->frame[at]);
            }
            rc = frames_send_lost (self, chunk, place, count - sent, to, error);
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
routable (const zdev_direction *direction)
{
    const zdev_frames *held = &direction->held;
    switch (direction->destination->type) {
        case TYPE_ROUTER:
            return held->count >= 2 && held->head[direction->swap ? 1 : 0] > 0;
        case TYPE_STREAM:
            return held->count == 2 && held->head[direction->swap ? 1 : 0] > 0;
        default:
            return held->count >= 2 || !direction->swap;
    }
}

/*  ----------------------------------------------------------------------
    Copy `[prefix, frames as sent on]`. zmq_msg_copy(3) shares large frames.  */

static void
copy_make (zdev_relay *self, zdev_direction *direction)
{
    zdev_frames *held = &direction->held;
    zdev_frames *copy = &direction->copy;
    zdev_chunk *chunk = &held->first;
    size_t place = 0;
    int whole = 1;

    direction->copied = 1;
    if (self->capture_dead)
        return;
    if (direction->has_prefix)
        whole = self->zmq.msg_copy (&copy->first.frame[copy->count++],
                                    &direction->prefix) == 0;
    for (size_t done = 0; whole && done < held->count; done++, place++) {
        if (place == CHUNK_FRAMES) {
            chunk = chunk->next;
            place = 0;
        }
        size_t at = direction->swap && done < 2 ? 1 - done : place;
        zdev_msg *slot = zdev_frames_add (self, copy);
        whole = slot && self->zmq.msg_copy (slot, &chunk->frame[at]) == 0;
    }
    if (!whole)
        zdev_frames_empty (self, copy);
}

/*  ----------------------------------------------------------------------
    Give the capture socket its copy. Returns 1 when the direction is free, 0
    when it waits for the capture socket.                                     */

static int
copy_send (zdev_relay *self, zdev_direction *direction)
{
    zdev_frames *copy = &direction->copy;
    int rc = SEND_LOST;
    if (copy->count > 0 && !self->capture_dead) {
        rc = zdev_frames_send (self, copy, self->capture, 0);
        if (rc < 0 && self->capture_drop)
            self->capture_dead = 1;
        else
        if (rc < 0 || (rc == SEND_REFUSED && !self->capture_drop))
            return rc;
    }
    if (rc == SEND_DONE)
        self->capture_sent++;
    else {
        self->capture_dropped++;
        zdev_frames_empty (self, copy);
    }
    direction->copied = 0;
    direction->stage = STAGE_TAKING;
    return 1;
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
    if (!routable (direction))
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
    Enter the held message as received.                                       */

static inline void
enter (zdev_direction *direction)
{
    direction->counters.messages_received++;
    direction->counters.frames_received += direction->held.total;
    direction->counters.bytes_received += direction->held.bytes;
    direction->stage = STAGE_HELD;
}

/*  ----------------------------------------------------------------------
    Relay a burst at most. Returns how many messages moved.

    A single frame that needs neither a copy nor a look at its address goes from
    the one call straight into the other: bookkeeping would cost as much as the
    calls themselves.                                                         */

int
zdev_direction_turn (zdev_relay *self, zdev_direction *direction)
{
    zdev_socket *source = direction->source;
    zdev_socket *to = direction->destination;
    zdev_frames *held = &direction->held;
    zdev_msg *single = &held->first.frame[0];
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
    while (!source->settled && moved < self->burst) {
        rc = self->zmq.msg_recv (frames_slot (held), source->handle,
                                 FLAG_DONTWAIT);
        if (direction->plain && held->total == 0 && rc >= 0 && rc < INT_MAX
        &&  !self->zmq.msg_more (single)) {
            moved++;
            to->settled = 0;
            if (self->zmq.msg_send (single, to->handle, FLAG_DONTWAIT) >= 0) {
                singles++;
                bytes += (uint64_t) rc;
                continue;
            }
            int error = self->zmq.get_errno ();
            held->count = held->total = 1;
            held->bytes = held->head[0] = (size_t) rc;
            enter (direction);
            rc = error == EINTR
               ? deliver (self, direction)
               : conclude (self, direction, refusal (to, error), 1,
                          held->bytes);
        }
        else {
            rc = frames_take (self, held, source, rc);
            if (rc == 1) {
                moved++;
                enter (direction);
                rc = deliver (self, direction);
            }
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
