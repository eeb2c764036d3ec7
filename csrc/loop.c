/*  loop.c: turns, waiting and control.

    The loop gives each direction a burst in turn, and blocks in poll(2) only
    when nothing can move: on the wake-up descriptor and on the ZMQ_FD of every
    socket. ZMQ_FD is edge-like (zmq_getsockopt(3)): it is readable when the
    socket has commands to process, and whoever processes them, be it a receive,
    a send or a look at ZMQ_EVENTS, takes the edge away. So each socket must be
    settled before the loop blocks: its commands processed, the answer looked
    at, and nothing done with it since.                                       */

#include "relay.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

/*  A parked direction whose destination shows POLLOUT and refuses all the same
    is tried again when its descriptor wakes the loop; should that edge be lost
    to another call, then after so many milliseconds.                         */
enum { DOUBT_TIMEOUT = 50 };

/*  While its time away is bounded, a busy loop returns after so many rounds.  */
enum { BOUNDED_ROUNDS = 64 };

/*  Commands served between two rounds: a flood of them must not stop traffic. */
enum { MAX_COMMANDS = 16 };

/*  ----------------------------------------------------------------------
    poll(2), with the table's signature.                                      */

static int
system_poll (void *items, unsigned long count, int timeout)
{
    return poll (items, (nfds_t) count, timeout);
}

/*  ----------------------------------------------------------------------
    Can a socket of this type send, and can it receive? zmq_socket(3).        */

static int
can_send (int type)
{
    return type != TYPE_SUB && type != TYPE_PULL;
}

static int
can_receive (int type)
{
    return type != TYPE_PUB && type != TYPE_PUSH;
}

/*  ----------------------------------------------------------------------
    Enter a socket once; two ends may be the same socket.                     */

static zdev_socket *
socket_enter (zdev_relay *self, const zdev_end *end)
{
    for (int i = 0; i < self->sockets; i++)
        if (self->socket[i].handle == end->handle)
            return &self->socket[i];
    zdev_socket *socket = &self->socket[self->sockets++];
    socket->handle = end->handle;
    socket->type = end->type;
    socket->fd = end->fd;
    return socket;
}

/*  ----------------------------------------------------------------------
    Open a direction; destination NULL makes it a sink. 0 if memory is short. */

static int
direction_open (zdev_relay *self, zdev_way way, zdev_socket *source,
                zdev_socket *destination, const void *prefix,
                size_t prefix_size, int swap)
{
    zdev_direction *direction = &self->direction[self->directions++];
    direction->way = way;
    direction->source = source;
    direction->destination = destination;
    direction->plain = destination && !swap
                    && destination->type != TYPE_ROUTER
                    && destination->type != TYPE_XSUB
                    && destination->type != TYPE_STREAM;
    direction->stage = STAGE_TAKING;
    zdev_frames_open (self, &direction->held, swap);
    zdev_frames_open (self, &direction->copy, 0);
    if (!prefix)
        self->zmq.msg_init (&direction->prefix);
    else {
        direction->has_prefix = 1;
        if (self->zmq.msg_init_size (&direction->prefix, prefix_size)) {
            self->zmq.msg_init (&direction->prefix);
            return 0;
        }
        if (prefix_size > 0)
            memcpy (self->zmq.msg_data (&direction->prefix), prefix,
                    prefix_size);
    }
    return 1;
}

/*  ----------------------------------------------------------------------
    Open one of the two ways between the ends, if anything can come that way;
    0 if memory is short.                                                     */

static int
direction_add (zdev_relay *self, const zdev_settings *settings, zdev_way way,
               zdev_socket *in, zdev_socket *out)
{
    zdev_socket *source = way == WAY_THERE ? in : out;
    zdev_socket *to = way == WAY_THERE ? out : in;
    if (!can_receive (source->type))
        return 1;
    if (!can_send (to->type))
        to = NULL;
    return way == WAY_THERE
         ? direction_open (self, way, source, to, settings->in_prefix,
                           settings->in_prefix_size, settings->swap)
         : direction_open (self, way, source, to, settings->out_prefix,
                           settings->out_prefix_size, settings->swap);
}

/*  ----------------------------------------------------------------------
    Make a relay.                                                             */

zdev_relay *
zdev_relay_new (const zdev_libzmq *libzmq, const zdev_settings *settings)
{
    zdev_relay *self = calloc (1, sizeof *self);
    if (!self)
        return NULL;
    self->zmq = *libzmq;
    if (!self->zmq.poll)
        self->zmq.poll = system_poll;
    self->wakeup_fd = settings->wakeup_fd;
    self->burst = settings->burst;
    self->capture_drop = settings->capture_drop;
    zdev_frames_open (self, &self->command, 0);

    zdev_socket *in = socket_enter (self, &settings->frontend);
    zdev_socket *out = socket_enter (self, &settings->backend);
    if (settings->capture.handle)
        self->capture = socket_enter (self, &settings->capture);
    if (settings->control.handle)
        self->control = socket_enter (self, &settings->control);

    /*  What nobody asked a REP for goes before it takes a request, lest it
        becomes the reply.                                                     */
    int back_first = in->type == TYPE_REP && in != out;
    int opened = !back_first
              || direction_add (self, settings, WAY_BACK, in, out);
    opened = opened && direction_add (self, settings, WAY_THERE, in, out);
    if (opened && !back_first && in != out)
        opened = direction_add (self, settings, WAY_BACK, in, out);
    if (opened && self->capture && self->capture->type == TYPE_XPUB)
        /*  its peers' subscriptions would pile up unread                      */
        opened = direction_open (self, WAY_ASIDE, self->capture, NULL, NULL, 0,
                                 0);
    if (!opened) {
        zdev_relay_free (self);
        return NULL;
    }
    return self;
}

/*  ----------------------------------------------------------------------
    Close what the relay holds and free it.                                   */

void
zdev_relay_free (zdev_relay *self)
{
    if (!self)
        return;
    for (int i = 0; i < self->directions; i++) {
        zdev_frames_close (self, &self->direction[i].held);
        zdev_frames_close (self, &self->direction[i].copy);
        self->zmq.msg_close (&self->direction[i].prefix);
    }
    zdev_frames_close (self, &self->command);
    free (self);
}

/*  ----------------------------------------------------------------------
    Pause, resume, look.                                                      */

void
zdev_relay_pause (zdev_relay *self, int paused)
{
    self->paused = paused;
}

int
zdev_relay_paused (const zdev_relay *self)
{
    return self->paused;
}

void
zdev_relay_statistics (const zdev_relay *self, zdev_statistics *copy)
{
    memset (copy, 0, sizeof *copy);
    for (int i = 0; i < self->directions; i++) {
        zdev_way way = self->direction[i].way;
        if (way == WAY_ASIDE)
            continue;
        zdev_counters *counters = way == WAY_THERE ? &copy->in_out
                                                   : &copy->out_in;
        *counters = self->direction[i].counters;
        counters->parked = self->direction[i].stage == STAGE_HELD;
        copy->capture_parked += self->direction[i].stage == STAGE_COPY;
    }
    copy->capture_sent = self->capture_sent;
    copy->capture_dropped = self->capture_dropped;
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

static void
unsettle (zdev_relay *self)
{
    for (int i = 0; i < self->sockets; i++)
        self->socket[i].settled = 0;
}

/*  ----------------------------------------------------------------------
    Is the socket read by somebody now?                                       */

static int
is_read (const zdev_relay *self, const zdev_socket *socket)
{
    if (socket == self->control)
        return 1;
    for (int i = 0; i < self->directions && !self->paused; i++)
        if (self->direction[i].source == socket
        &&  self->direction[i].stage == STAGE_TAKING)
            return 1;
    return 0;
}

/*  ----------------------------------------------------------------------
    Answer on the control socket: the envelope, then the body. A peer that does
    not take its answer goes without: control must not wait for anyone.       */

static int
answer (zdev_relay *self, size_t envelope, const uint64_t *body, size_t count)
{
    zdev_frames *frames = &self->command;
    size_t used = frames->count < CHUNK_FRAMES ? frames->count : CHUNK_FRAMES;
    for (size_t place = envelope; place < used; place++) {
        self->zmq.msg_close (&frames->first.frame[place]);
        self->zmq.msg_init (&frames->first.frame[place]);
    }
    frames->count = envelope;
    frames->last = &frames->first;
    if (!body)
        frames->count++;                    /*  an empty frame                 */
    for (size_t i = 0; i < count; i++) {
        zdev_msg *slot = &frames->first.frame[frames->count++];
        self->zmq.msg_close (slot);
        if (self->zmq.msg_init_size (slot, sizeof *body)) {
            self->zmq.msg_init (slot);
            return 0;
        }
        memcpy (self->zmq.msg_data (slot), &body[i], sizeof *body);
    }
    int rc = zdev_frames_send (self, frames, self->control);
    return rc < 0 ? rc : 0;
}

/*  ----------------------------------------------------------------------
    STATISTICS as libzmq orders them: received and sent by the frontend, then
    by the backend; each in frames, then bytes.                               */

static int
answer_statistics (zdev_relay *self, size_t envelope)
{
    zdev_statistics now;
    zdev_relay_statistics (self, &now);
    const uint64_t body[8] = {
        now.in_out.frames_received, now.in_out.bytes_received,
        now.out_in.frames_sent, now.out_in.bytes_sent,
        now.out_in.frames_received, now.out_in.bytes_received,
        now.in_out.frames_sent, now.in_out.bytes_sent,
    };
    return answer (self, envelope, body, sizeof body / sizeof *body);
}

/*  ----------------------------------------------------------------------
    Is this frame the command?                                                */

static int
says (zdev_relay *self, zdev_msg *frame, const char *command)
{
    size_t size = strlen (command);
    return self->zmq.msg_size (frame) == size
        && memcmp (self->zmq.msg_data (frame), command, size) == 0;
}

/*  ----------------------------------------------------------------------
    Serve one message of the control socket, as zmq_proxy_steerable(3) has it.
    Only its first frame counts, after the envelope that ROUTER and DEALER see.
    Whoever sent a request (REP's peer, or a REQ behind a ROUTER) is answered
    even when the command is unknown, or it could never ask again.            */

static int
serve_control (zdev_relay *self)
{
    zdev_frames *frames = &self->command;
    int type = self->control->type;
    int rc = zdev_frames_receive (self, frames, self->control);
    if (rc <= 0)
        return rc;

    rc = 0;
    zdev_msg *frame = frames->first.frame;
    size_t count = frames->short_of_memory ? 0 : frames->count;
    size_t envelope = type == TYPE_ROUTER ? 1 : 0;
    int asked = type == TYPE_REP;
    if ((type == TYPE_ROUTER || type == TYPE_DEALER)
    &&  count > envelope + 1
    &&  self->zmq.msg_size (&frame[envelope]) == 0) {
        envelope++;
        asked = 1;
    }
    if (count > envelope) {
        frame += envelope;
        if (says (self, frame, "STATISTICS") && can_send (type)) {
            asked = 0;
            rc = answer_statistics (self, envelope);
        }
        else
        if (says (self, frame, "PAUSE"))
            self->paused = 1;
        else
        if (says (self, frame, "RESUME")) {
            self->paused = 0;
            unsettle (self);
        }
        else
        if (says (self, frame, "TERMINATE"))
            self->terminated = 1;
    }
    if (asked && rc == 0)
        rc = answer (self, envelope, NULL, 0);
    zdev_frames_empty (self, frames);
    return rc < 0 ? rc : 1;
}

/*  ----------------------------------------------------------------------
    Try to send what is parked, a last time.                                  */

int
zdev_relay_flush (zdev_relay *self)
{
    for (int i = 0; i < self->directions; i++)
        if (self->direction[i].stage != STAGE_TAKING) {
            int rc = zdev_direction_retry (self, &self->direction[i]);
            if (rc < 0)
                return rc;
        }
    return 0;
}

/*  ----------------------------------------------------------------------
    Settle every socket. Returns 1 if something can move after all, 0 if the
    loop may block, and shortens the timeout for a doubtful direction.        */

static int
settle (zdev_relay *self, int *timeout)
{
    int movable = 0;
    for (int i = 0; i < self->directions && !self->paused; i++) {
        zdev_direction *direction = &self->direction[i];
        zdev_socket *awaited = zdev_direction_awaits (self, direction);
        if (awaited) {
            /*  a receive may have taken the edge of its POLLOUT               */
            awaited->settled = 0;
            if ((direction->doubtful || awaited->type == TYPE_ROUTER)
            && (*timeout < 0 || *timeout > DOUBT_TIMEOUT))
                *timeout = DOUBT_TIMEOUT;
        }
    }
    for (int i = 0; i < self->sockets; i++) {
        zdev_socket *socket = &self->socket[i];
        if (socket->settled || (socket == self->capture && self->capture_dead))
            continue;
        int events = zdev_socket_events (self, socket);
        if (events < 0) {
            if (socket != self->capture || !self->capture_drop)
                return events;
            self->capture_dead = 1;
            continue;
        }
        if (!socket->settled && is_read (self, socket))
            movable = 1;
        else
            socket->settled = 1;
        for (int j = 0; j < self->directions && !self->paused; j++)
            if ((events & EVENT_OUT) && !self->direction[j].doubtful
            &&  zdev_direction_awaits (self, &self->direction[j]) == socket)
                movable = 1;
    }
    return movable;
}

/*  ----------------------------------------------------------------------
    Wait until a socket or the wake-up descriptor is readable; with timeout 0,
    only look. Returns ZDEV_WOKEN if the caller is wanted, 0 if time ran out or
    a socket is readable, which is then unsettled.                            */

static int
await (zdev_relay *self, int timeout)
{
    struct pollfd item[MAX_SOCKETS + 1];
    item[0].fd = self->wakeup_fd;
    for (int i = 0; i < self->sockets; i++) {
        const zdev_socket *socket = &self->socket[i];
        int dead = socket == self->capture && self->capture_dead;
        item[i + 1].fd = dead ? -1 : socket->fd;
    }
    for (int i = 0; i <= self->sockets; i++) {
        item[i].events = POLLIN;
        item[i].revents = 0;
    }
    self->since_look = 0;
    if (self->zmq.poll (item, (unsigned long) self->sockets + 1, timeout) < 0) {
        int error = self->zmq.get_errno ();
        return error == EINTR ? ZDEV_WOKEN : -error;
    }
    for (int i = 0; i < self->sockets; i++)
        if (item[i + 1].revents)
            self->socket[i].settled = 0;
    if (item[0].revents & POLLNVAL)
        return -EBADF;
    return item[0].revents ? ZDEV_WOKEN : 0;
}

/*  ----------------------------------------------------------------------
    One round: a turn for each direction, then control. Returns how much moved,
    or -errno.                                                                */

static int
round_of_turns (zdev_relay *self)
{
    int moved = 0;
    for (int i = 0; i < self->directions && !self->paused; i++) {
        zdev_direction *direction = &self->direction[i];
        int optional = direction->source == self->capture && self->capture_drop;
        if (optional && self->capture_dead)
            continue;
        int rc = zdev_direction_turn (self, direction);
        if (rc >= 0)
            moved += rc;
        else
        if (optional)
            self->capture_dead = 1;
        else
            return rc;
    }
    for (int i = 0; i < MAX_COMMANDS && self->control
                    && !self->control->settled && !self->terminated; i++) {
        int rc = serve_control (self);
        if (rc < 0)
            return rc;
        if (rc == 0)
            break;
        moved++;
    }
    self->since_look += moved;
    return moved;
}

/*  ----------------------------------------------------------------------
    Relay until finished, woken or failed.                                    */

int
zdev_relay_run (zdev_relay *self, int timeout)
{
    unsettle (self);
    for (int rounds = 0; ; rounds += timeout > 0) {
        int rc = 0;
        int blocking = timeout;
        int moved = round_of_turns (self);
        if (moved < 0)
            return moved;
        if (self->terminated) {
            self->terminated = 0;
            rc = zdev_relay_flush (self);
            return rc < 0 ? rc : ZDEV_FINISHED;
        }
        if (moved > 0) {
            if (timeout == 0)
                return ZDEV_STEPPED + moved;
            if (self->since_look >= self->burst)
                rc = await (self, 0);
        }
        else {
            rc = settle (self, &blocking);
            if (rc > 0)
                continue;               /*  something can move after all       */
            if (rc == 0) {
                if (timeout == 0)
                    return ZDEV_STEPPED;
                rc = await (self, blocking);
                if (rc == 0 && timeout > 0)
                    rc = ZDEV_WOKEN;
            }
        }
        if (rc == 0 && timeout > 0 && rounds >= BOUNDED_ROUNDS)
            rc = ZDEV_WOKEN;
        if (rc != 0)
            return rc;
    }
}
