/*  frames.c: a socket, and the frames of one message in and out of it.

    Every receive and send is DONTWAIT: what waits is the loop, never a call.  */

#include "internal.h"

#include <limits.h>
#include <stdlib.h>

/*  ----------------------------------------------------------------------
    Can a socket of this type send, and can it receive? zmq_socket(3).        */

int
zdev_can_send (int type)
{
    return type != TYPE_SUB && type != TYPE_PULL;
}

int
zdev_can_receive (int type)
{
    return type != TYPE_PUB && type != TYPE_PUSH;
}

/*  ----------------------------------------------------------------------
    Process the socket's commands and return its ZMQ_EVENTS. It stays
    unsettled if it can be read, for whoever reads it.                        */

int
zdev_socket_events (zdev_relay *self, zdev_socket *socket)
{
    for (;;) {
        int events = 0;
        size_t size = sizeof events;
        if (self->zmq.getsockopt (socket->handle, OPTION_EVENTS, &events,
                                  &size) == 0) {
            socket->settled = !(events & EVENT_IN);
            return events & (EVENT_IN | EVENT_OUT);
        }
        int error = self->zmq.get_errno ();
        if (error != EINTR)
            return -error;
    }
}

/*  ----------------------------------------------------------------------
    Whatever was known of the sockets is so no more.                          */

void
zdev_unsettle (zdev_relay *self)
{
    for (int i = 0; i < self->sockets; i++)
        self->socket[i].settled = 0;
}

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
    Add a copy of a frame; 0 when memory is short. zmq_msg_copy(3) shares large
    frames.                                                                   */

int
zdev_frames_copy (zdev_relay *self, zdev_frames *frames, zdev_msg *original)
{
    if (frames->count > 0 && frames->count % CHUNK_FRAMES == 0
    && !frames_grow (self, frames))
        return 0;
    zdev_msg *slot = frames_slot (frames);
    frames->count++;
    return self->zmq.msg_copy (slot, original) == 0;
}

/*  ----------------------------------------------------------------------
    Take in the frames of one message, or the rest of them; rc is what
    msg_recv returned for the next slot. Returns 1 when the message is whole, 0
    when the source has nothing (more) now.

    libzmq delivers a message whole, so EAGAIN after the first frame is not to
    be expected; should it come, the frames wait here for the rest. When memory
    for one more frame is short, the message is read to its end and not kept:
    a peer that sends a million frames must not end the device.               */

int
zdev_frames_take (zdev_relay *self, zdev_frames *frames, zdev_socket *source,
                  int rc)
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
    Receive one message, or the rest of it; returns as zdev_frames_take does.  */

int
zdev_frames_receive (zdev_relay *self, zdev_frames *frames, zdev_socket *source)
{
    int rc = self->zmq.msg_recv (frames_slot (frames), source->handle,
                                 FLAG_DONTWAIT);
    return zdev_frames_take (self, frames, source, rc);
}

/*  ----------------------------------------------------------------------
    Count the subscription that this message of an XPUB makes or cancels, if it
    does. libzmq tells of one in a frame that is the last of a message, even if
    data of a peer's goes before it. With ZMQ_ONLY_FIRST_SUBSCRIBE, all behind
    data is data. A peer may cancel what nobody has subscribed to.            */

void
zdev_count_subscription (zdev_relay *self, zdev_socket *source,
                         const zdev_frames *frames)
{
    if (frames->short_of_memory || (self->only_first && frames->count > 1))
        return;
    size_t place = (frames->count - 1) % CHUNK_FRAMES;
    if (frames->swap && frames->count <= 2)
        place = 1 - place;
    const zdev_msg *last = &frames->last->frame[place];
    if (self->zmq.msg_size (last) == 0)
        return;
    const unsigned char *data = self->zmq.msg_data ((zdev_msg *) last);
    if (*data == 1)
        source->subscriptions++;
    else
    if (*data == 0 && source->subscriptions > 0)
        source->subscriptions--;
}

/*  ----------------------------------------------------------------------
    A frame was not sent: send it again if a signal came in between. Returns 0
    or the errno.                                                             */

int
zdev_frame_insist (zdev_relay *self, zdev_msg *frame, void *to, int flags)
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
    Does the error speak of the peer, not of the socket?                      */

int
zdev_peer_error (int error)
{
    return error == EAGAIN || error == EHOSTUNREACH;
}

/*  ----------------------------------------------------------------------
    The peer vanished between two frames of a message; `left` frames are here
    still, from `slot` on, of which the first was refused.

    Without this, what is left would come out as part of another message. Most
    sockets (PUSH, DEALER) remember that they are within a message and swallow
    what they are given until its end; one that is never shown the end swallows
    the next message, too. So they get the rest, for nothing. A PAIR remembers
    nothing: its next peer would take the rest for a message of its own, so it
    gets none of it. The refused frame itself is not tried again: it would be
    the first of a new message.

    test_every_error_at_every_call (tests/loops/test_injection.py) lets a peer
    vanish at each frame, and finds whatever arrives cut or merged.           */

int
zdev_frames_send_lost (zdev_relay *self, zdev_chunk *chunk, zdev_msg *slot,
                       size_t left, zdev_socket *to, int error)
{
    int failed = zdev_peer_error (error) ? 0 : error;
    msg_empty (self, slot);
    while (--left > 0) {
        if (++slot == chunk->frame + CHUNK_FRAMES) {
            chunk = chunk->next;
            slot = chunk->frame;
        }
        if (to->type != TYPE_PAIR && !failed) {
            error = frame_send (self, slot, to, left > 1 ? FLAG_SNDMORE : 0);
            if (error && !zdev_peer_error (error))
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

int
zdev_refusal (const zdev_socket *to, int error)
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
        return zdev_refusal (to, error);
    while (--left > 0) {
        if (++slot == end) {
            chunk = chunk->next;
            slot = chunk->frame;
            end = slot + CHUNK_FRAMES;
        }
        error = frame_send (self, slot, to, left > 1 ? FLAG_SNDMORE : 0);
        if (error) {
            rc = zdev_frames_send_lost (self, chunk, slot, left, to, error);
            break;
        }
    }
    frames_reset (self, frames);
    return rc;
}
