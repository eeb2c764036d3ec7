/*  internal.h: what the C files share, and nobody else sees.

    Each file calls only those before it:

        frames.c        a socket, and the frames of one message in and out of it
        direction.c     what becomes of one message
        turn.c          a burst of one direction, and the short way
        loop.c          turns, waiting, control

    life.c makes, frees, pauses and counts. It calls frames.c; loop.c calls it
    for the statistics alone.

    Functions return 0 or more for success and -errno for a failure that ends
    the relay, unless they say otherwise.                                     */

#ifndef ZDEV_INTERNAL_H
#define ZDEV_INTERNAL_H

#include "zdev.h"

#include <errno.h>

/*  What every message goes through is compiled into one piece, for a few fixed
    cases; what seldom happens is kept out of its way.                        */
#if defined __GNUC__
#   define ALWAYS_INLINE inline __attribute__ ((always_inline))
#   define SELDOM __attribute__ ((cold, noinline))
#   define APART __attribute__ ((noinline))
#else
#   define ALWAYS_INLINE inline
#   define SELDOM
#   define APART
#endif

/*  libzmq's values, from zmq_socket(3), zmq_getsockopt(3), zmq_msg_send(3).   */

enum { TYPE_PAIR = 0, TYPE_PUB = 1, TYPE_SUB = 2, TYPE_REQ = 3, TYPE_REP = 4,
       TYPE_DEALER = 5, TYPE_ROUTER = 6, TYPE_PULL = 7, TYPE_PUSH = 8,
       TYPE_XPUB = 9, TYPE_XSUB = 10, TYPE_STREAM = 11 };
enum { OPTION_EVENTS = 15 };
enum { EVENT_IN = 1, EVENT_OUT = 2 };
enum { FLAG_DONTWAIT = 1, FLAG_SNDMORE = 2 };

/*  libzmq numbers these itself where the system lacks them.                   */
#define ZDEV_EFSM (156384712 + 51)

/*  A zmq_msg_t: 64 bytes, aligned like a pointer, since libzmq 4.1.           */
typedef union {
    unsigned char bytes[64];
    void *alignment;
} zdev_msg;

/*  The frames of one message, in linked chunks.

    An array that grows would move them, and nothing but libzmq's own calls may
    move what is in a zmq_msg_t (zmq_msg_init(3)). The first chunk is part of the
    list, so that a message of up to sixteen frames needs no allocation. Every
    zdev_msg of a chunk is initialised from the chunk's birth to its death: a
    receive replaces what is in it, a send leaves it empty. To initialise and
    close one for each frame would take two calls more.

    The case "many frames" of test_undisturbed (tests/loops/test_injection.py) is
    longer than a chunk; the libzmq in it finds a zmq_msg_t that was moved, used
    before it was initialised, or never closed.                               */
enum { CHUNK_FRAMES = 16 };

typedef struct zdev_chunk zdev_chunk;
struct zdev_chunk {
    zdev_chunk *next;
    zdev_msg frame[CHUNK_FRAMES];
};

typedef struct {
    size_t count;               /*  frames received so far                     */
    uint64_t bytes;             /*  size of all                                */
    int short_of_memory;        /*  they were not kept                         */
    int swap;                   /*  the first two change places                */
    zdev_chunk *last;           /*  the chunk where frame `count` goes         */
    zdev_chunk first;
} zdev_frames;

/*  A socket and what is known of its descriptor. It is `settled` when its
    commands were processed and nothing has used it since; only then may its
    ZMQ_FD be waited on. loop.c says why.                                      */
typedef struct {
    void *handle;
    int type;
    int fd;
    int settled;
    uint64_t subscriptions;     /*  made less cancelled, as an XPUB told       */
} zdev_socket;

/*  Where the message of a direction is.                                       */
typedef enum {
    STAGE_TAKING,               /*  frames are being received (perhaps none)   */
    STAGE_HELD,                 /*  whole, for the destination                 */
    STAGE_COPY                  /*  delivered; its copy is for the capture     */
} zdev_stage;

/*  Where a direction leads.                                                   */
typedef enum {
    WAY_THERE,                  /*  from the frontend to the backend           */
    WAY_BACK,
    WAY_ASIDE                   /*  nowhere, and not counted: what the capture
                                    socket's peers send                        */
} zdev_way;

/*  What became of the messages of a direction. What it received is not stored:
    zdev_relay_statistics computes it, as sent + lost + held, so that no message
    can be missing from the account.                                           */
typedef struct {
    uint64_t messages_sent;
    uint64_t frames_sent;
    uint64_t bytes_sent;
    uint64_t dropped;           /*  messages that were lost                    */
    uint64_t unroutable;        /*  others, which nobody could get             */
    uint64_t overflowed;        /*  others, for which there was no room        */
    uint64_t frames_lost;       /*  of all three                               */
    uint64_t bytes_lost;
} zdev_outcome;

/*  One way through the device; the two ways differ in data alone. A direction
    without destination is a sink: what it takes is counted dropped.           */
typedef struct {
    zdev_way way;
    zdev_socket *source;
    zdev_socket *destination;
    zdev_msg prefix;
    int has_prefix;
    int drop;                   /*  what the destination refuses               */
    int short_way;              /*  short messages may take it                 */
    zdev_stage stage;
    int copied;                 /*  `copy` was made of what is held            */
    int doubtful;               /*  POLLOUT was shown, yet the send refused    */
    int long_wait;              /*  it waits for so long that it was told      */
    uint64_t waits_since;       /*  by the clock; 0: it does not wait          */
    int shut;                   /*  its source is left unread                  */
    zdev_frames held;
    zdev_frames copy;
    zdev_outcome outcome;
} zdev_direction;

enum { MAX_DIRECTIONS = 3, MAX_SOCKETS = 4 };

struct zdev_relay {
    zdev_libzmq zmq;
    zdev_socket socket[MAX_SOCKETS];
    zdev_socket *capture;       /*  NULL: none, or none in use                 */
    zdev_socket *capture_given; /*  NULL: none                                 */
    zdev_socket *control;       /*  NULL: none                                 */
    int sockets;
    int directions;
    int wakeup_fd;
    int burst;
    int capture_drop;
    int capture_dead;
    int only_first;             /*  ZMQ_ONLY_FIRST_SUBSCRIBE is set            */
    int paused;
    int terminated;
    int long_wait;              /*  milliseconds; 0: none is                   */
    int news;                   /*  the caller is wanted, to be told           */
    int since_look;             /*  messages since wake-up and control were
                                    looked at                                  */
    uint64_t capture_sent;
    uint64_t capture_dropped;
    zdev_direction direction[MAX_DIRECTIONS];
    zdev_frames command;        /*  what the control socket says               */
};

/*  What became of a message that was handed to a socket.                      */
typedef enum {
    SEND_REFUSED,               /*  nothing was sent: not now                  */
    SEND_DONE,
    SEND_UNROUTABLE,            /*  nothing was sent: nobody has that address  */
    SEND_LOST                   /*  the peer vanished between two frames       */
} zdev_sent;

/*  In a shared library, a call of what others may replace takes a detour.     */
#if defined __GNUC__
#   pragma GCC visibility push(hidden)
#endif

/*  ----------------------------------------------------------------------
    frames.c                                                                  */

int zdev_can_send (int type);
int zdev_can_receive (int type);
int zdev_socket_events (zdev_relay *self, zdev_socket *socket);
void zdev_unsettle (zdev_relay *self);
void zdev_count_subscription (zdev_relay *self, zdev_socket *source,
                              const zdev_frames *frames);

void zdev_frames_open (zdev_relay *self, zdev_frames *frames, int swap);
void zdev_frames_close (zdev_relay *self, zdev_frames *frames);
void zdev_frames_empty (zdev_relay *self, zdev_frames *frames);
int zdev_frames_copy (zdev_relay *self, zdev_frames *frames,
                      zdev_msg *original);

int zdev_frames_receive (zdev_relay *self, zdev_frames *frames,
                         zdev_socket *source);
int zdev_frames_take (zdev_relay *self, zdev_frames *frames,
                      zdev_socket *source, int rc);

int zdev_frames_send (zdev_relay *self, zdev_frames *frames, zdev_socket *to);
SELDOM int zdev_frames_send_lost (zdev_relay *self, zdev_chunk *chunk,
                                  zdev_msg *slot, size_t left, zdev_socket *to,
                                  int error);
SELDOM int zdev_frame_insist (zdev_relay *self, zdev_msg *frame, void *to,
                              int flags);
int zdev_refusal (const zdev_socket *to, int error);
int zdev_peer_error (int error);

/*  Send one frame; 0 or the errno.                                            */

static ALWAYS_INLINE int
frame_send (zdev_relay *self, zdev_msg *frame, zdev_socket *to, int flags)
{
    flags |= FLAG_DONTWAIT;
    if (self->zmq.msg_send (frame, to->handle, flags) >= 0)
        return 0;
    return zdev_frame_insist (self, frame, to->handle, flags);
}

/*  Release what a message holds and leave it initialised.                     */

static inline void
msg_empty (zdev_relay *self, zdev_msg *message)
{
    self->zmq.msg_close (message);
    self->zmq.msg_init (message);
}

/*  ----------------------------------------------------------------------
    direction.c                                                               */

void zdev_direction_enter (zdev_direction *direction);
int zdev_direction_deliver (zdev_relay *self, zdev_direction *direction);
int zdev_direction_conclude (zdev_relay *self, zdev_direction *direction,
                             int rc, uint64_t frames, uint64_t bytes);
int zdev_direction_copy_conclude (zdev_relay *self, zdev_direction *direction,
                                  int rc);
zdev_socket *zdev_direction_awaits (const zdev_relay *self,
                                    const zdev_direction *direction);
int zdev_direction_retry (zdev_relay *self, zdev_direction *direction);

/*  ----------------------------------------------------------------------
    turn.c                                                                    */

int zdev_direction_turn (zdev_relay *self, zdev_direction *direction);

#if defined __GNUC__
#   pragma GCC visibility pop
#endif

#endif
