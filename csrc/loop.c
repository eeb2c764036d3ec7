/*  loop.c: turns, waiting and control.

    The loop gives each direction a burst in turn, and blocks in poll(2) only
    when nothing can move: on the wake-up descriptor and on the ZMQ_FD of every
    socket.

    ZMQ_FD is edge-like (zmq_getsockopt(3)): it is readable while the socket has
    commands to process, and whoever processes them takes that away, be it a
    receive, a send or a look at ZMQ_EVENTS. So a send may use up the news that
    the same socket can be read, and a receive the news that its peer has room;
    a loop that simply blocked would sleep beside a message for ever. Therefore
    a socket must be settled before the loop blocks: its commands processed, the
    answer looked at, and nothing done with it since. A receive that finds
    nothing settles its source; every send unsettles; settle() does the rest.

    zmq_poll(3) settles by itself, but takes two system calls more for each
    wake-up. To try the sources again for a while before blocking gained nothing.

    test_every_step_at_every_moment (tests/loops/test_interleaving.py) lets peers
    act right before every single call, and finds a loop that sleeps while
    something could move, or spins. tests/proofs/model/check tries all orders of
    a small model.                                                            */

#include "internal.h"

#include <poll.h>
#include <string.h>

/*  Milliseconds after which a parked direction is tried again although nothing
    says that it can go on, where POLLOUT says nothing.

    XPUB and PUB show POLLOUT always: a loop that goes by it spins. A ROUTER
    shows none while none of its peers has room, though the one that the message
    is for may have left, so that the message must be given up: a loop that waits
    for it waits for ever. In both cases the loop goes by the descriptor alone.
    But that is an edge, which another call may have used up before the send was
    refused; then nothing else comes, and only the clock is left.

    test_every_step_at_every_moment (tests/loops/test_interleaving.py) sleeps for
    ever without it in its cases "full xpub" and "full router"; test_nobody_spins
    (tests/loops/test_waiting.py) shows that it takes next to no CPU time.     */
enum { DOUBT_TIMEOUT = 50 };

/*  While its time away is bounded, a busy loop returns after so many rounds.  */
enum { BOUNDED_ROUNDS = 64 };

/*  Commands served between two rounds: a flood of them must not stop traffic. */
enum { MAX_COMMANDS = 16 };

/*  ----------------------------------------------------------------------
    Is the socket read by somebody now?                                       */

static int
is_read (const zdev_relay *self, const zdev_socket *socket)
{
    if (socket == self->control)
        return 1;
    for (int i = 0; i < self->directions && !self->paused; i++)
        if (self->direction[i].source == socket
        &&  !self->direction[i].shut
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
    for (size_t place = envelope; place < used; place++)
        msg_empty (self, &frames->first.frame[place]);
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
        now.there.frames_received, now.there.bytes_received,
        now.back.frames_sent, now.back.bytes_sent,
        now.back.frames_received, now.back.bytes_received,
        now.there.frames_sent, now.there.bytes_sent,
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
    if (type == TYPE_XPUB)
        zdev_count_subscription (self, self->control, frames);
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
        if (says (self, frame, "STATISTICS") && zdev_can_send (type)) {
            asked = 0;
            rc = answer_statistics (self, envelope);
        }
        else
        if (says (self, frame, "PAUSE"))
            self->paused = 1;
        else
        if (says (self, frame, "RESUME")) {
            self->paused = 0;
            zdev_unsettle (self);
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
    For how many milliseconds may the loop block beside what a direction has
    parked? Not at all if the caller is wanted; -1: for ever.                 */

static int
longest_block (const zdev_relay *self, const zdev_direction *direction,
               const zdev_socket *awaited)
{
    if (self->news)
        return 0;
    if (direction->doubtful || awaited->type == TYPE_ROUTER)
        return DOUBT_TIMEOUT;
    return self->long_wait && !direction->long_wait ? self->long_wait : -1;
}

/*  ----------------------------------------------------------------------
    When does the loop have to be run again for what is parked, besides all
    signs? -1: never.                                                         */

int
zdev_relay_patience (const zdev_relay *self)
{
    int patience = -1;
    for (int i = 0; i < self->directions && !self->paused; i++) {
        const zdev_direction *direction = &self->direction[i];
        const zdev_socket *awaited = zdev_direction_awaits (self, direction);
        int longest = awaited ? longest_block (self, direction, awaited) : -1;
        if (longest >= 0 && (patience < 0 || patience > longest))
            patience = longest;
    }
    return patience;
}

/*  ----------------------------------------------------------------------
    Settle every socket. Returns 1 if something can move after all, 0 if the
    loop may block, and shortens the timeout for what is parked.              */

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
            int longest = longest_block (self, direction, awaited);
            if (longest >= 0 && (*timeout < 0 || *timeout > longest))
                *timeout = longest;
        }
    }
    for (int i = 0; i < self->sockets; i++) {
        zdev_socket *socket = &self->socket[i];
        if (socket->settled
        || (socket == self->capture_given && self->capture_dead))
            continue;
        int events = zdev_socket_events (self, socket);
        if (events < 0) {
            if (socket != self->capture_given || !self->capture_drop)
                return events;
            self->capture_dead = 1;
            movable = 1;            /*  the caller of a look has to know       */
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
    May something move? What is parked may: only a send tells.                */

int
zdev_relay_look (zdev_relay *self)
{
    int timeout = 0;
    for (int i = 0; i < self->directions && !self->paused; i++)
        if (self->direction[i].stage != STAGE_TAKING)
            return 1;
    zdev_unsettle (self);
    return settle (self, &timeout);
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
        int dead = socket == self->capture_given && self->capture_dead;
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
        int optional = direction->source == self->capture_given
                    && self->capture_drop;
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
    self->news = 0;
    zdev_unsettle (self);
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
        if (rc == 0 && (timeout > 0 ? rounds >= BOUNDED_ROUNDS : self->news))
            rc = ZDEV_WOKEN;
        if (rc != 0)
            return rc;
    }
}
