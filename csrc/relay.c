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

/*  What every message goes through is compiled into one piece, for a few fixed
    cases; what seldom happens is kept out of its way.                        */
#if defined __GNUC__
#   define ALWAYS_INLINE inline __attribute__ ((always_inline))
#   define SELDOM __attribute__ ((cold, noinline))
#   define APART __attribute__ ((noinline))
#   define UNROLL _Pragma ("GCC unroll 3")
#else
#   define ALWAYS_INLINE inline
#   define SELDOM
#   define APART
#   define UNROLL
#endif

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
zdev_frames_open (zdev_relay *self, zdev_frames *frames, int swap)
{
    frames->swap = swap;
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
    if (used == 1 && frames->swap)
        used = 2;                           /*  it is in the second slot       */
    for (size_t place = 0; place < used; place++)
        msg_empty (self, &frames->first.frame[place]);
    frames_reset (self, frames);
}

/*  ----------------------------------------------------------------------
    The slot of the next frame. Frames are kept in the order in which they will
    be sent on: with swap, the second before the first.                       */

static inline zdev_msg *
frames_slot (zdev_frames *frames)
{
    size_t place = frames->count % CHUNK_FRAMES;
    if (frames->swap && frames->count < 2)
        place = 1 - place;
    return &frames->last->frame[place];
}

/*  ----------------------------------------------------------------------
    Add a chunk; 0 when memory is short.                                      */

static int
frames_grow (zdev_relay *self, zdev_frames *frames)
{
    zdev_chunk *chunk = malloc (sizeof *chunk);
    if (!chunk)
        return 0;
    chunk_open (self, chunk);
    frames->last->next = chunk;
    frames->last = chunk;
    return 1;
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

    for (;;) {
        if (rc >= 0) {
            /*  zmq_msg_recv(3) gives the size, but no more than an int holds  */
            frames->bytes += rc < INT_MAX ? (size_t) rc
                                          : self->zmq.msg_size (slot);
            frames->count++;
            if (!self->zmq.msg_more (slot))
                return 1;
            if (frames->count % CHUNK_FRAMES == 0
            && (frames->short_of_memory || !frames_grow (self, frames))) {
                uint64_t bytes = frames->bytes;
                size_t count = frames->count;
                zdev_frames_empty (self, frames);
                frames->short_of_memory = 1;
                frames->bytes = bytes;
                frames->count = count;
            }
            slot = frames_slot (frames);
        }
        else {
            rc = -self->zmq.get_errno ();
            if (rc != -EINTR)
                break;
        }
        rc = self->zmq.msg_recv (slot, source->handle, FLAG_DONTWAIT);
    }
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
    A frame was not sent: send it again if a signal came in between. Returns 0
    or the errno.                                                             */

SELDOM static int
frame_insist (zdev_relay *self, zdev_msg *frame, void *to, int flags)
{
    for (;;) {
        int error = self->zmq.get_errno ();
        if (error != EINTR)
            return error;
        if (self->zmq.msg_send (frame, to, flags) >= 0)
            return 0;
    }
}

/*  ----------------------------------------------------------------------
    Send one frame; 0 or the errno.                                           */

static ALWAYS_INLINE int
frame_send (zdev_relay *self, zdev_msg *frame, zdev_socket *to, int flags)
{
    flags |= FLAG_DONTWAIT;
    if (self->zmq.msg_send (frame, to->handle, flags) >= 0)
        return 0;
    return frame_insist (self, frame, to->handle, flags);
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

SELDOM static int
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
    Send the frames as one message. Unless it is SEND_REFUSED or fails at the
    first frame, none is left.

    The high-water mark counts messages, so only the first frame can meet it;
    after that only a vanishing peer refuses a frame.                         */

int
zdev_frames_send (zdev_relay *self, zdev_frames *frames, zdev_socket *to)
{
    zdev_chunk *chunk = &frames->first;
    zdev_msg *slot = chunk->frame;
    zdev_msg *end = slot + CHUNK_FRAMES;
    size_t left = frames->count;
    int rc = SEND_DONE;

    to->settled = 0;
    int error = frame_send (self, slot, to, left > 1 ? FLAG_SNDMORE : 0);
    if (error)
        return refusal (to, error);
    while (--left > 0) {
        if (++slot == end) {
            chunk = chunk->next;
            slot = chunk->frame;
            end = slot + CHUNK_FRAMES;
        }
        error = frame_send (self, slot, to, left > 1 ? FLAG_SNDMORE : 0);
        if (error) {
            rc = frames_send_lost (self, chunk, slot, left, to, error);
            break;
        }
    }
    frames_reset (self, frames);
    return rc;
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
    Would it harm the destination? An XSUB keeps subscriptions in a tree with a
    level for each byte, which libzmq descends by recursion: it overflows the
    stack for one of 100 KB, which any subscriber behind an XPUB can send.     */

enum { MAX_SUBSCRIPTION = 1024 };

/*  A frame makes or cancels a subscription by its first byte, or as a command
    of ZMTP, which libzmq lets through.                                        */

static int
subscribes (const void *data)
{
    return *(const unsigned char *) data <= 1
        || memcmp (data, "\6CANCEL", 7) == 0
        || memcmp (data, "\11SUBSCRIBE", 10) == 0;
}

static int
harmful (zdev_relay *self, zdev_direction *direction)
{
    zdev_frames *held = &direction->held;
    zdev_chunk *chunk = &held->first;
    if (direction->destination->type != TYPE_XSUB
    ||  held->bytes <= 1 + MAX_SUBSCRIPTION)
        return 0;
    for (size_t place = 0; place < held->count; place++) {
        if (place > 0 && place % CHUNK_FRAMES == 0)
            chunk = chunk->next;
        zdev_msg *frame = &chunk->frame[place % CHUNK_FRAMES];
        if (self->zmq.msg_size (frame) > 1 + MAX_SUBSCRIPTION
        &&  subscribes (self->zmq.msg_data (frame)))
            return 1;
    }
    return 0;
}

/*  ----------------------------------------------------------------------
    Add a copy of a frame; 0 when memory is short. zmq_msg_copy(3) shares large
    frames.                                                                   */

static int
frames_copy (zdev_relay *self, zdev_frames *frames, zdev_msg *original)
{
    if (frames->count > 0 && frames->count % CHUNK_FRAMES == 0
    && !frames_grow (self, frames))
        return 0;
    zdev_msg *slot = frames_slot (frames);
    frames->count++;
    return self->zmq.msg_copy (slot, original) == 0;
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
             || frames_copy (self, copy, &direction->prefix);
    for (size_t done = 0; whole && done < count; done++) {
        if (done > 0 && done % CHUNK_FRAMES == 0)
            chunk = chunk->next;
        whole = frames_copy (self, copy, &chunk->frame[done % CHUNK_FRAMES]);
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
        rc = zdev_frames_send (self, copy, self->capture);
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
    if (!routable (direction, held->count,
                   self->zmq.msg_size (&held->first.frame[0])))
        return discard (self, direction, &counters->unroutable);
    if (harmful (self, direction))
        return discard (self, direction, &counters->dropped);
    if (self->capture && !direction->copied)
        copy_make (self, direction);

    uint64_t frames = held->count;
    uint64_t bytes = held->bytes;
    int rc = zdev_frames_send (self, held, direction->destination);
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
    Go on with a message of which msg_recv has returned rc, whatever it is.
    Returns 1 when the direction is free for the next one, 0 when it waits or
    the source has nothing (more) now.                                        */

SELDOM static int
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
    Count short messages as received and sent.                                */

static inline void
short_count (zdev_direction *direction, uint64_t messages, uint64_t frames,
             uint64_t bytes)
{
    zdev_counters *counters = &direction->counters;
    counters->messages_received += messages;
    counters->frames_received += frames;
    counters->bytes_received += bytes;
    counters->messages_sent += messages;
    counters->frames_sent += frames;
    counters->bytes_sent += bytes;
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

    enter (direction, count, bytes);
    if (self->capture) {
        direction->copied = 1;
        direction->copy.count = count + (direction->has_prefix ? 1 : 0);
    }
    if (slot == held->first.frame) {
        held->count = count;
        held->bytes = bytes;
        rc = refusal (to, error);
    }
    else
        rc = frames_send_lost (self, &held->first, slot,
                               (size_t) (last - slot) + 1, to, error);
    rc = conclude (self, direction, rc, count, bytes);
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
        rc = refusal (self->capture, error);
    }
    else
        rc = frames_send_lost (self, &copy->first, slot,
                               (size_t) (last - slot) + 1, self->capture,
                               error);
    rc = copy_conclude (self, direction, rc);
    return rc == 1 ? 2 : rc;
}

/*  ----------------------------------------------------------------------
    It may not go straight on, or memory is short for its copy, which then has
    so many frames.                                                           */

SELDOM static int
short_detour (zdev_relay *self, zdev_direction *direction, zdev_msg *last,
              uint64_t bytes, size_t copied)
{
    zdev_frames *held = &direction->held;
    held->count = (size_t) (last - held->first.frame) + 1;
    held->bytes = bytes;
    enter (direction, held->count, bytes);
    if (copied > 0) {
        direction->copied = 1;
        direction->copy.count = copied;
        zdev_frames_empty (self, &direction->copy);
    }
    int rc = deliver (self, direction);
    return rc == 1 ? 2 : rc;
}

/*  ----------------------------------------------------------------------
    May a short message go straight on? What deliver has to look at may not.  */

static ALWAYS_INLINE int
straight (const zdev_direction *direction, size_t count, size_t address)
{
    if (count < 2)
        return direction->plain;
    int type = direction->destination->type;
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
    The same for a message of three frames with its copy: an envelope and a body
    is what most requests are.                                                */

APART static int
three_deliver (zdev_relay *self, zdev_direction *direction, uint64_t bytes,
               size_t address)
{
    return short_deliver (self, direction, 3, bytes, address, 0, 1);
}

/*  ----------------------------------------------------------------------
    Relay short messages straight from one call into the next: to keep account
    of what is held would cost as much as the calls. When all are `plain`, no
    address needs to be looked at. Returns as short_deliver does.             */

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
    return turn_any (self, direction, rc, moved);
}

/*  ----------------------------------------------------------------------
    Its three cases: nothing needs a look, an address may, or a copy is made.  */

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
    return turn_short (self, direction, moved, 0, 1);
}

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
    if (direction->source->settled)
        return moved;
    while (rc > 0 && moved < self->burst) {
        if (!direction->destination || held->count > 0 || self->capture_dead) {
            rc = self->zmq.msg_recv (frames_slot (held),
                                     direction->source->handle, FLAG_DONTWAIT);
            rc = turn_any (self, direction, rc, &moved);
        }
        else
        if (self->capture)
            rc = turn_captured (self, direction, &moved);
        else
            rc = direction->plain ? turn_plain (self, direction, &moved)
                                  : turn_routed (self, direction, &moved);
    }
    return rc < 0 ? rc : moved;
}
