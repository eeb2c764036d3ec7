/*  relay.h: what relay.c (one direction) and loop.c (turns, waiting, control)
    share, and nobody else sees.                                              */

#ifndef ZDEV_RELAY_H
#define ZDEV_RELAY_H

#include "zdev.h"

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

/*  The frames of one message. Every zdev_msg in a chunk is initialised from
    the chunk's birth to its death: a receive replaces what is in it, a send
    leaves it empty. Chunks are linked, never grown: a zmq_msg_t must not move. */
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

/*  A socket and what is known of its descriptor. ZMQ_FD is edge-like: it may
    be waited on only when `settled`, that is when its commands were processed
    and nothing has used the socket since. A send unsettles.                   */
typedef struct {
    void *handle;
    int type;
    int fd;
    int settled;
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

/*  One way through the device; the two ways differ in data alone. A direction
    without destination is a sink: what it takes is counted dropped.           */
typedef struct {
    zdev_way way;
    zdev_socket *source;
    zdev_socket *destination;
    zdev_msg prefix;
    int has_prefix;
    int plain;                  /*  no frame needs a look at it                */
    zdev_stage stage;
    int copied;                 /*  `copy` was made of what is held            */
    int doubtful;               /*  POLLOUT was shown, yet the send refused    */
    zdev_frames held;
    zdev_frames copy;
    zdev_counters counters;
} zdev_direction;

enum { MAX_DIRECTIONS = 3, MAX_SOCKETS = 4 };

struct zdev_relay {
    zdev_libzmq zmq;
    zdev_socket socket[MAX_SOCKETS];
    zdev_socket *capture;       /*  NULL: none                                 */
    zdev_socket *control;       /*  NULL: none                                 */
    int sockets;
    int directions;
    int wakeup_fd;
    int burst;
    int capture_drop;
    int capture_dead;
    int paused;
    int terminated;
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

/*  relay.c                                                                    */
void zdev_frames_open (zdev_relay *self, zdev_frames *frames, int swap);
void zdev_frames_close (zdev_relay *self, zdev_frames *frames);
void zdev_frames_empty (zdev_relay *self, zdev_frames *frames);
int zdev_frames_receive (zdev_relay *self, zdev_frames *frames,
                         zdev_socket *source);
int zdev_frames_send (zdev_relay *self, zdev_frames *frames, zdev_socket *to);
int zdev_direction_turn (zdev_relay *self, zdev_direction *direction);
int zdev_direction_retry (zdev_relay *self, zdev_direction *direction);
zdev_socket *zdev_direction_awaits (const zdev_relay *self,
                                    const zdev_direction *direction);

/*  loop.c                                                                     */
int zdev_socket_events (zdev_relay *self, zdev_socket *socket);

#endif
