/*  world.h: a libzmq in memory whose every call can fail, and the ledger of
    what a relay does with it.

    The sockets do what libzmq's do, the awkward parts above all, just as those
    of the Python tests' scripted libzmq: what a peer does takes effect when
    the socket processes its commands, and whatever processes them takes the
    edge of ZMQ_FD away; time passes only while the relay blocks. What a relay
    must never do ends the process with a message that says what it did.       */

#ifndef WORLD_H
#define WORLD_H

#include "zdev.h"

enum { PAIR, PUB, SUB, REQ, REP, DEALER, ROUTER, PULL, PUSH, XPUB, XSUB, STREAM,
       TYPES };
enum { FRONTEND, BACKEND, CAPTURE, CONTROL, ROLES };
enum { THERE, BACK, ASIDE, WAYS };

/*  Has the relay's caller been told of a wait that is long? PERHAPS: it was told
    of something, or looked by itself.                                         */
enum { UNTOLD, PERHAPS, TOLD };

/*  What a frame holds. From UNSUBSCRIBE on, it subscribes to too long a topic;
    so does every other GIANT. LIMIT is as long as may be.                     */
enum { EMPTY, PEER_A, PEER_B, BODY, GIANT, PAUSE, RESUME, TERMINATE, STATISTICS,
       NONSENSE, LIMIT, LONG, UNSUBSCRIBE, SUBSCRIBE, ZMTP_CANCEL,
       ZMTP_SUBSCRIBE, CONTENTS };

/*  The calls that can fail.                                                   */
enum { RECV, SEND, EVENTS, POLL, COPY, INIT_SIZE, MEMORY, CALLS };

typedef struct message message;
typedef struct peer_socket peer_socket;

struct peer_socket {
    int type;
    int role;
    int fd;
    int room;                   /*  messages until its peers are full; -1: any */
    int mandatory;              /*  ROUTER_MANDATORY, XPUB_NODROP              */
    int knows_b;                /*  peer B is there; A always is               */
    /*  commands that wait to be processed                                     */
    int command_wake;
    int command_unfill;
    int command_room;
    int told;                   /*  that the context was terminated            */
    /*  the way in                                                             */
    message *inbox;
    message **inbox_end;
    int awake;                  /*  has not found the inbox empty since woken  */
    int late;                   /*  what is in the inbox is still on its way   */
    /*  the way out                                                            */
    size_t place;               /*  frames of the present message that it has  */
    message *current;           /*  which that is                              */
    int behind;                 /*  ways whose prefix it began with, as bits   */
    int full;                   /*  whatever the room                          */
    int doubtful;               /*  showed POLLOUT and refused                 */
    int dropping;               /*  swallows the rest: the peer is gone        */
    int answering;              /*  REP: was asked; REQ: has asked             */
    int owes;                   /*  REP: its request went nowhere              */
    uint64_t subscriptions;     /*  XPUB: that its peers hold                  */
    int closed;
    int failed;                 /*  a call gave ETERM or ENOTSOCK              */
};

typedef struct {
    peer_socket *source;        /*  NULL: there is no such way                 */
    peer_socket *destination;   /*  NULL: a sink                               */
    message *held;              /*  received, neither sent nor lost            */
    message *copy;              /*  sent on; the capture is to have its copy   */
    const char *prefix;
    size_t prefix_size;
    int drop;                   /*  what the destination refuses twice         */
    int refused;                /*  `held` was, once                           */
    int shut;                   /*  the source is to be left unread            */
    uint64_t since;             /*  when `held` or `copy` was first refused; 0:
                                    nothing waits                              */
    int vague;                  /*  paused right then: the relay may say less  */
    int told;
    zdev_counters count;        /*  what the relay should have counted         */
} ledger;

struct fault {
    struct fault *next;
    int call, role, error, skip;
};

extern struct world {
    peer_socket *socket[ROLES]; /*  BACKEND may be FRONTEND; NULL: none        */
    peer_socket *aside[ROLES];  /*  CAPTURE and CONTROL, which may come later  */
    ledger way[WAYS];
    int swap;
    int capture_drop;
    int only_first;             /*  ZMQ_ONLY_FIRST_SUBSCRIBE                   */
    int copies;                 /*  the capture gets them                      */
    int long_wait;              /*  milliseconds; 0: no clock is to be read    */
    uint64_t now;               /*  the clock                                  */
    int burst;
    int throttle;               /*  sends process commands: 0 always, 1 never,
                                    else now and then                          */
    int real_poll;              /*  the relay calls poll(2) itself             */
    const uint8_t *next, *end;  /*  what will happen                           */
    int countdown;              /*  calls until it does; 0: at the next block  */
    struct fault *faults;
    int timeout;                /*  of the present run                         */
    int woken;                  /*  the wake-up descriptor is readable         */
    int wakeup_closed;
    int wanted;                 /*  what the relay's owner will do when woken  */
    int looking;                /*  within zdev_relay_look                     */
    int over;                   /*  nothing is left to happen                  */
    int interrupted;            /*  poll was                                   */
    int terminated;             /*  the context                                */
    int paused;
    int overflowed;             /*  a message has, in the present run          */
    int news;                   /*  a wait that was long is over, in it        */
    int due;                    /*  and the caller knew of it                  */
    int finished;               /*  TERMINATE was received                     */
    int fatal;                  /*  the error that must end the relay          */
    int no_memory;              /*  for the relay itself                       */
    uint64_t capture_sent, capture_dropped;
} world;

extern const zdev_libzmq world_table;
extern int world_trace;         /*  tell every call                            */
enum { WAKEUP_FD = 3000 };

void world_open (void);
peer_socket *world_socket (int role, int type);
int can_send (int type);
int can_receive (int type);
int world_time_passes (void);           /*  0 when nothing more happens        */
const char *world_movable (int timed);
int world_signalled (void);
void world_pause (int paused);
int world_waited_long (const ledger *way);
void world_expect_quiet (void);         /*  nothing begun is left undone       */
void world_expect_counts (const zdev_statistics *actual);
void world_close (void);                /*  every message must be closed       */
void violation (const char *format, ...)
    __attribute__ ((format (printf, 1, 2), noreturn));

#define DEMAND(condition, ...)                                              \
    do                                                                      \
        if (!(condition))                                                   \
            violation (__VA_ARGS__);                                        \
    while (0)

#endif
