/*  life.c: make a relay, free it, pause it, shut its ways, count what it did. */

#include "internal.h"

#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/*  ----------------------------------------------------------------------
    poll(2), with the table's signature.                                      */

static int
system_poll (void *items, unsigned long count, int timeout)
{
    return poll (items, (nfds_t) count, timeout);
}

/*  ----------------------------------------------------------------------
    Milliseconds of a clock that never goes back.                             */

static uint64_t
system_clock (void)
{
    struct timespec now;
    clock_gettime (CLOCK_MONOTONIC, &now);
    return (uint64_t) now.tv_sec * 1000 + (uint64_t) now.tv_nsec / 1000000 + 1;
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
                size_t prefix_size, int swap, int drop)
{
    zdev_direction *direction = &self->direction[self->directions++];
    direction->way = way;
    direction->source = source;
    direction->destination = destination;
    direction->drop = drop;
    direction->short_way = destination && source->type != TYPE_XPUB;
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
    Take in a capture and a control socket, where there is one.               */

void
zdev_relay_join (zdev_relay *self, const zdev_end *capture,
                 const zdev_end *control)
{
    if (control->handle)
        self->control = socket_enter (self, control);
    if (!capture->handle)
        return;
    self->capture = self->capture_given = socket_enter (self, capture);
    if (capture->type == TYPE_XPUB)
        /*  its peers' subscriptions would pile up unread                      */
        direction_open (self, WAY_ASIDE, self->capture, NULL, NULL, 0, 0, 0);
}

/*  ----------------------------------------------------------------------
    Open one of the two ways between frontend and backend, if anything can come
    that way; 0 if memory is short.                                           */

static int
direction_add (zdev_relay *self, const zdev_settings *settings, zdev_way way,
               zdev_socket *frontend, zdev_socket *backend)
{
    zdev_socket *source = way == WAY_THERE ? frontend : backend;
    zdev_socket *to = way == WAY_THERE ? backend : frontend;
    if (!zdev_can_receive (source->type))
        return 1;
    if (!zdev_can_send (to->type))
        to = NULL;
    return way == WAY_THERE
         ? direction_open (self, way, source, to, settings->in_prefix,
                           settings->in_prefix_size, settings->swap,
                           settings->in_drop)
         : direction_open (self, way, source, to, settings->out_prefix,
                           settings->out_prefix_size, settings->swap,
                           settings->out_drop);
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
    if (!self->zmq.clock)
        self->zmq.clock = system_clock;
    self->long_wait = settings->long_wait;
    self->wakeup_fd = settings->wakeup_fd;
    self->burst = settings->burst;
    self->capture_drop = settings->capture_drop;
    zdev_frames_open (self, &self->command, 0);

    zdev_socket *frontend = socket_enter (self, &settings->frontend);
    zdev_socket *backend = socket_enter (self, &settings->backend);

    /*  What nobody asked a REP for goes before it takes a request, lest it
        becomes the reply.                                                     */
    int single = frontend == backend;
    int back_first = frontend->type == TYPE_REP && !single;
    int opened = !back_first
              || direction_add (self, settings, WAY_BACK, frontend, backend);
    opened = opened
          && direction_add (self, settings, WAY_THERE, frontend, backend);
    if (opened && !back_first && !single)
        opened = direction_add (self, settings, WAY_BACK, frontend, backend);
    if (!opened) {
        zdev_relay_free (self);
        return NULL;
    }
    zdev_relay_join (self, &settings->capture, &settings->control);
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
    Pause and resume.                                                         */

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

/*  ----------------------------------------------------------------------
    Give the capture socket copies, or do without it; what is parked may have a
    copy already, which must go there.                                        */

void
zdev_relay_copies (zdev_relay *self, int wanted)
{
    for (int i = 0; i < self->directions; i++)
        if (!wanted && self->direction[i].stage != STAGE_TAKING)
            return;
    self->capture = wanted ? self->capture_given : NULL;
}

/*  ----------------------------------------------------------------------
    Has the capture socket failed?                                            */

int
zdev_relay_capture_failed (const zdev_relay *self)
{
    return self->capture_dead;
}

/*  ----------------------------------------------------------------------
    Leave the source of a direction unread, or read it again.                 */

void
zdev_relay_shut (zdev_relay *self, int there, int back)
{
    for (int i = 0; i < self->directions; i++) {
        zdev_direction *direction = &self->direction[i];
        if (direction->way != WAY_ASIDE)
            direction->shut = direction->way == WAY_THERE ? there : back;
    }
}

/*  ----------------------------------------------------------------------
    Know whether later frames can subscribe, too.                             */

void
zdev_relay_only_first (zdev_relay *self, int only_first)
{
    self->only_first = only_first;
}

/*  ----------------------------------------------------------------------
    How many subscriptions are held at a socket?                              */

uint64_t
zdev_relay_subscriptions (const zdev_relay *self, const void *handle)
{
    uint64_t subscriptions = 0;
    for (int i = 0; i < self->sockets; i++)
        if (self->socket[i].handle == handle)
            subscriptions = self->socket[i].subscriptions;
    return subscriptions;
}

/*  ----------------------------------------------------------------------
    Fill in the counters of one direction. What it received is what it has sent
    and lost, and what it holds.                                              */

static void
count (const zdev_relay *self, const zdev_direction *direction,
       zdev_counters *counters)
{
    const zdev_outcome *outcome = &direction->outcome;
    int held = direction->stage == STAGE_HELD;
    uint64_t lost = outcome->dropped + outcome->unroutable
                  + outcome->overflowed;

    counters->messages_received = outcome->messages_sent + lost;
    counters->frames_received = outcome->frames_sent + outcome->frames_lost;
    counters->bytes_received = outcome->bytes_sent + outcome->bytes_lost;
    if (held) {
        counters->messages_received++;
        counters->frames_received += direction->held.count;
        counters->bytes_received += direction->held.bytes;
    }
    counters->messages_sent = outcome->messages_sent;
    counters->frames_sent = outcome->frames_sent;
    counters->bytes_sent = outcome->bytes_sent;
    counters->dropped = outcome->dropped;
    counters->unroutable = outcome->unroutable;
    counters->overflowed = outcome->overflowed;
    counters->parked = (uint64_t) held;
    if (direction->waits_since)
        counters->parked_seconds =
            (double) (self->zmq.clock () - direction->waits_since) / 1000;
}

/*  ----------------------------------------------------------------------
    Count what the relay has done.                                            */

void
zdev_relay_statistics (const zdev_relay *self, zdev_statistics *copy)
{
    memset (copy, 0, sizeof *copy);
    for (int i = 0; i < self->directions; i++) {
        const zdev_direction *direction = &self->direction[i];
        if (direction->way == WAY_ASIDE)
            continue;
        zdev_counters *counters = direction->way == WAY_THERE ? &copy->there
                                                              : &copy->back;
        count (self, direction, counters);
        if (direction->stage == STAGE_COPY) {
            copy->capture_parked++;
            if (copy->capture_parked_seconds < counters->parked_seconds)
                copy->capture_parked_seconds = counters->parked_seconds;
        }
    }
    copy->capture_sent = self->capture_sent;
    copy->capture_dropped = self->capture_dropped;
}
