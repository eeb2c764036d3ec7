/*  leaks.c: the C loop with messages in every place that can hold one, freed
    there. LeakSanitizer reports at the end what was not released; Python's own
    allocations, which it would report too, are not in the way here.          */

#include "zdev.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zmq.h>

#define CHECK(condition)                                                    \
    do                                                                      \
        if (!(condition)) {                                                 \
            fprintf (stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__,         \
                     #condition, zmq_strerror (zmq_errno ()));              \
            exit (1);                                                       \
        }                                                                   \
    while (0)

/*  Frames too large for a zmq_msg_t to hold inside, more than two chunks.     */
enum { FRAMES = 40, FRAME_SIZE = 1000 };

static void *context;
static int never[2];            /*  a wake-up descriptor that nobody wakes     */

static int msg_init (void *m) { return zmq_msg_init (m); }
static int msg_init_size (void *m, size_t n) { return zmq_msg_init_size (m, n); }
static void *msg_data (void *m) { return zmq_msg_data (m); }
static size_t msg_size (const void *m) { return zmq_msg_size (m); }
static int msg_more (const void *m) { return zmq_msg_more (m); }
static int msg_copy (void *to, void *from) { return zmq_msg_copy (to, from); }
static int msg_close (void *m) { return zmq_msg_close (m); }
static int msg_recv (void *m, void *s, int f) { return zmq_msg_recv (m, s, f); }
static int msg_send (void *m, void *s, int f) { return zmq_msg_send (m, s, f); }

static const zdev_libzmq table = {
    zmq_errno, msg_init, msg_init_size, msg_data, msg_size, msg_more, msg_copy,
    msg_close, msg_recv, msg_send, zmq_getsockopt, NULL, NULL
};

static void *
bound (int type, const char *address)
{
    void *socket = zmq_socket (context, type);
    int one = 1, zero = 0;
    CHECK (socket);
    CHECK (zmq_setsockopt (socket, ZMQ_SNDHWM, &one, sizeof one) == 0);
    CHECK (zmq_setsockopt (socket, ZMQ_LINGER, &zero, sizeof zero) == 0);
    CHECK (zmq_bind (socket, address) == 0);
    return socket;
}

static void *
peer (int type, const char *address)
{
    void *socket = zmq_socket (context, type);
    int zero = 0;
    CHECK (socket);
    CHECK (zmq_setsockopt (socket, ZMQ_LINGER, &zero, sizeof zero) == 0);
    CHECK (zmq_connect (socket, address) == 0);
    return socket;
}

static void
send_message (void *socket, const char *first, int frames)
{
    static const char body[FRAME_SIZE];
    CHECK (zmq_send (socket, first, strlen (first), frames > 1 ? ZMQ_SNDMORE : 0)
           >= 0);
    for (int left = frames - 1; left > 0; left--)
        CHECK (zmq_send (socket, body, sizeof body, left > 1 ? ZMQ_SNDMORE : 0)
               >= 0);
}

static zdev_end
end (void *socket)
{
    zdev_end end = { socket, 0, 0 };
    size_t size = sizeof (int);
    if (socket) {
        CHECK (zmq_getsockopt (socket, ZMQ_TYPE, &end.type, &size) == 0);
        CHECK (zmq_getsockopt (socket, ZMQ_FD, &end.fd, &size) == 0);
    }
    return end;
}

static zdev_relay *
relay (void *frontend, void *backend, void *capture, void *control, int drop)
{
    static char prefix[FRAME_SIZE];
    zdev_settings settings = {
        end (frontend), end (backend), end (capture), end (control),
        prefix, sizeof prefix, prefix, sizeof prefix, 0, 0, 0, drop, 64, never[0], 0
    };
    settings.swap = settings.frontend.type == ZMQ_ROUTER
                 && settings.backend.type == ZMQ_ROUTER;
    /*  The two at the side may come later just as well.                       */
    zdev_end none = { NULL, 0, 0 };
    zdev_end later = settings.capture;
    settings.capture = none;
    zdev_relay *self = zdev_relay_new (&table, &settings);
    CHECK (self);
    zdev_relay_join (self, &later, &none);
    return self;
}

/*  Step until nothing moves; inproc has no I/O thread to wait for.            */
static zdev_statistics
settle (zdev_relay *self)
{
    zdev_statistics now;
    int rc;
    while ((rc = zdev_relay_run (self, 0)) > ZDEV_STEPPED)
        ;
    CHECK (rc == ZDEV_STEPPED || rc == ZDEV_FINISHED);
    zdev_relay_statistics (self, &now);
    return now;
}

/*  A message whose destination has no peer; the copy for the capture is made. */
static void
parked_message (void)
{
    void *pull = bound (ZMQ_PULL, "inproc://pull");
    void *push = bound (ZMQ_PUSH, "inproc://push");
    void *capture = bound (ZMQ_PUSH, "inproc://capture");
    void *source = peer (ZMQ_PUSH, "inproc://pull");
    zdev_relay *self = relay (pull, push, capture, NULL, 0);
    send_message (source, "a", FRAMES);
    zdev_statistics now = settle (self);
    CHECK (now.there.parked == 1 && now.there.frames_received == FRAMES);
    zdev_relay_copies (self, 0);            /*  it has its copy all the same   */
    settle (self);
    zdev_relay_free (self);
    zmq_close (source), zmq_close (capture), zmq_close (push), zmq_close (pull);
}

/*  A copy for a capture without a peer.                                       */
static void
copy (int drop)
{
    void *pull = bound (ZMQ_PULL, "inproc://pull");
    void *push = bound (ZMQ_PUSH, "inproc://push");
    void *capture = bound (ZMQ_PUSH, "inproc://capture");
    void *source = peer (ZMQ_PUSH, "inproc://pull");
    void *sink = peer (ZMQ_PULL, "inproc://push");
    zdev_relay *self = relay (pull, push, capture, NULL, drop);
    send_message (source, "a", FRAMES);
    zdev_statistics now = settle (self);
    CHECK (now.there.messages_sent == 1);
    CHECK (now.capture_parked == !drop && now.capture_dropped == (uint64_t) drop);
    zdev_relay_free (self);
    zmq_close (sink), zmq_close (source);
    zmq_close (capture), zmq_close (push), zmq_close (pull);
}

static void
waiting_copy (void)
{
    copy (0);
}

static void
dropped_copy (void)
{
    copy (1);
}

/*  Messages without a copy; then one that is left unread first, and has one.  */
static void
changed (void)
{
    void *pull = bound (ZMQ_PULL, "inproc://pull");
    void *push = bound (ZMQ_PUSH, "inproc://push");
    void *capture = bound (ZMQ_PUSH, "inproc://capture");
    void *source = peer (ZMQ_PUSH, "inproc://pull");
    void *sink = peer (ZMQ_PULL, "inproc://push");
    zdev_relay *self = relay (pull, push, capture, NULL, 0);
    zdev_relay_copies (self, 0);
    send_message (source, "a", 1);
    send_message (source, "a", FRAMES);
    zdev_statistics now = settle (self);
    CHECK (now.there.messages_sent == 2 && now.capture_parked == 0);
    zdev_relay_shut (self, 1, 1);
    send_message (source, "a", FRAMES);
    now = settle (self);
    CHECK (now.there.messages_received == 2);
    zdev_relay_shut (self, 0, 0);
    zdev_relay_copies (self, 1);
    now = settle (self);
    CHECK (now.there.messages_sent == 3 && now.capture_parked == 1);
    zdev_relay_free (self);
    zmq_close (sink), zmq_close (source);
    zmq_close (capture), zmq_close (push), zmq_close (pull);
}

/*  ROUTER to ROUTER: one that arrives, and two that nobody is there for.      */
static void
routed (void)
{
    void *in = bound (ZMQ_ROUTER, "inproc://in");
    void *out = bound (ZMQ_ROUTER, "inproc://out");
    void *capture = bound (ZMQ_PUB, "inproc://capture");
    int one = 1;
    char identity[8];
    CHECK (zmq_setsockopt (out, ZMQ_ROUTER_MANDATORY, &one, sizeof one) == 0);
    void *from = peer (ZMQ_DEALER, "inproc://in");
    void *to = zmq_socket (context, ZMQ_DEALER);
    CHECK (zmq_setsockopt (to, ZMQ_ROUTING_ID, "to", 2) == 0);
    CHECK (zmq_connect (to, "inproc://out") == 0);
    zdev_relay *self = relay (in, out, capture, NULL, 0);
    send_message (from, "to", FRAMES);
    send_message (from, "nobody", FRAMES);
    send_message (from, "", FRAMES);
    zdev_statistics now = settle (self);
    CHECK (now.there.messages_sent == 1 && now.there.unroutable == 2);
    CHECK (now.capture_sent == 1);
    CHECK (zmq_recv (to, identity, sizeof identity, ZMQ_DONTWAIT) == 5);
    zdev_relay_free (self);
    zmq_close (to), zmq_close (from);
    zmq_close (capture), zmq_close (out), zmq_close (in);
}

/*  Commands: too long ones, one that is answered, the last.                   */
static void
steered (void)
{
    void *in = bound (ZMQ_PAIR, "inproc://in");
    void *out = bound (ZMQ_PAIR, "inproc://out");
    void *control = bound (ZMQ_REP, "inproc://control");
    void *chief = peer (ZMQ_REQ, "inproc://control");
    const char *commands[] = { "NONSENSE", "STATISTICS", "PAUSE", "TERMINATE" };
    char reply[FRAME_SIZE];
    zdev_relay *self = relay (in, out, NULL, control, 0);
    for (int i = 0; i < 4; i++) {
        int more = 1;
        size_t size = sizeof more;
        send_message (chief, commands[i], FRAMES);
        settle (self);
        while (more) {
            CHECK (zmq_recv (chief, reply, sizeof reply, ZMQ_DONTWAIT) >= 0);
            CHECK (zmq_getsockopt (chief, ZMQ_RCVMORE, &more, &size) == 0);
        }
    }
    zdev_relay_free (self);
    zmq_close (chief), zmq_close (control), zmq_close (out), zmq_close (in);
}

int
main (void)
{
    void (*const scenarios[]) (void) = {
        parked_message, waiting_copy, dropped_copy, changed, routed, steered
    };
    CHECK (pipe (never) == 0);
    for (size_t i = 0; i < sizeof scenarios / sizeof *scenarios; i++) {
        CHECK ((context = zmq_ctx_new ()));
        scenarios[i] ();
        CHECK (zmq_ctx_term (context) == 0);
    }
    return 0;
}
