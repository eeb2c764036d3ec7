/*  zdev.h: the contract between the C relay loop and whoever calls it.

    A relay joins two or three ZeroMQ sockets and moves whole messages between
    them. It is handed a table of libzmq's functions, so it is linked with no
    libzmq and needs none of its headers; any libzmq from 4.1 on fits.

    Ownership: the caller owns the sockets, the table and the settings' buffers.
    The relay copies the table and the settings, borrows the sockets for its
    life, and owns every message that it has taken and not yet sent.

    Threads: a relay belongs to one thread at a time, like its sockets. Other
    threads wake it by making the wake-up descriptor readable.

    build_ffi.py hands the lines between the two "cdef" marks to CFFI.       */

#ifndef ZDEV_H
#define ZDEV_H

#include <stddef.h>
#include <stdint.h>

/* cdef: begin */

/*  ----------------------------------------------------------------------
    The functions that the loop calls. All but the last two are libzmq's, with
    zmq_msg_t written as void. poll is poll(2); clock returns milliseconds, from
    1 up, that never go back. NULL stands for the system's.                   */

typedef struct {
    int (*get_errno) (void);
    int (*msg_init) (void *message);
    int (*msg_init_size) (void *message, size_t size);
    void *(*msg_data) (void *message);
    size_t (*msg_size) (const void *message);
    int (*msg_more) (const void *message);
    int (*msg_copy) (void *to, void *from);
    int (*msg_close) (void *message);
    int (*msg_recv) (void *message, void *socket, int flags);
    int (*msg_send) (void *message, void *socket, int flags);
    int (*getsockopt) (void *socket, int option, void *value, size_t *size);
    int (*poll) (void *items, unsigned long count, int timeout);
    uint64_t (*clock) (void);
} zdev_libzmq;

/*  One socket: its handle (NULL where there is none), its ZMQ_TYPE and its
    ZMQ_FD.                                                                   */

typedef struct {
    void *handle;
    int type;
    int fd;
} zdev_end;

/*  What a relay is made of. in_prefix is for copies of what goes there, from
    the frontend to the backend, out_prefix for copies of what comes back; one
    whose data is NULL means no prefix frame.
    swap exchanges the first two frames (ROUTER to ROUTER). in_drop and out_drop
    drop a message that its destination does not take, on the way there and on
    the way back, instead of waiting for it; capture_drop does so with a copy.
    long_wait is for how many milliseconds a message may be parked until the
    caller is told; with 0, nobody is, and no clock is read.                  */

typedef struct {
    zdev_end frontend;
    zdev_end backend;
    zdev_end capture;
    zdev_end control;
    const void *in_prefix;
    size_t in_prefix_size;
    const void *out_prefix;
    size_t out_prefix_size;
    int swap;
    int in_drop;
    int out_drop;
    int capture_drop;
    int burst;
    int wakeup_fd;
    int long_wait;
} zdev_settings;

/*  What one direction has done so far. At every return of zdev_relay_run,
    messages_received = messages_sent + dropped + unroutable + overflowed
                      + parked.                                               */

typedef struct {
    uint64_t messages_received;
    uint64_t frames_received;
    uint64_t bytes_received;
    uint64_t messages_sent;
    uint64_t frames_sent;
    uint64_t bytes_sent;
    uint64_t dropped;
    uint64_t unroutable;
    uint64_t overflowed;
    uint64_t parked;
    double parked_seconds;      /*  for the destination, or for the capture    */
} zdev_counters;

typedef struct {
    zdev_counters there;        /*  from the frontend to the backend           */
    zdev_counters back;
    uint64_t capture_sent;
    uint64_t capture_dropped;
    uint64_t capture_parked;
    double capture_parked_seconds;
} zdev_statistics;

/*  What zdev_relay_run returns; an error is its negated errno.               */

#define ZDEV_FINISHED 0
#define ZDEV_WOKEN 1
#define ZDEV_STEPPED 2

typedef struct zdev_relay zdev_relay;

/*  Make a relay; NULL when memory is short.                                  */
zdev_relay *zdev_relay_new (const zdev_libzmq *libzmq,
                            const zdev_settings *settings);

/*  Close every message that the relay holds and free it. NULL is allowed.    */
void zdev_relay_free (zdev_relay *self);

/*  Relay until TERMINATE arrives (ZDEV_FINISHED), the wake-up descriptor is
    readable, a signal came, a direction has waited long, or goes on after that
    (ZDEV_WOKEN), or a socket fails (-errno). Calling
    again goes on where it left off. timeout is in milliseconds: -1 waits for
    ever, or until a message has overflowed (ZDEV_WOKEN); 0 relays at most a
    burst per direction and returns ZDEV_STEPPED plus how much moved (nothing:
    nothing can until a descriptor is readable); any other bounds the time away
    from the caller, who sees ZDEV_WOKEN.                                     */
int zdev_relay_run (zdev_relay *self, int timeout);

/*  May something move? Returns 0 if nothing can until a descriptor is readable,
    1 if something may, or the capture has failed just now, or -errno. It takes
    and sends no message.                                                     */
int zdev_relay_look (zdev_relay *self);

/*  After how many milliseconds does zdev_relay_run have to be called again for
    what is parked, though no descriptor is readable? -1: for nothing.        */
int zdev_relay_patience (const zdev_relay *self);

/*  Has the capture socket failed, under capture_drop? It is left alone then, and
    its descriptor may stay readable.                                         */
int zdev_relay_capture_failed (const zdev_relay *self);

/*  Try once more to send what is parked; 0 or -errno.                        */
int zdev_relay_flush (zdev_relay *self);

/*  While paused, a relay serves its control socket and moves nothing.        */
void zdev_relay_pause (zdev_relay *self, int paused);
int zdev_relay_paused (const zdev_relay *self);

/*  Leave unread what comes to the frontend (there), to the backend (back); 0
    reads it again. What a direction holds is sent on all the same.           */
void zdev_relay_shut (zdev_relay *self, int there, int back);
/*  Know that at an XSUB, a message whose first frame subscribes to nothing
    subscribes to nothing at all: ZMQ_ONLY_FIRST_SUBSCRIBE is set.            */
void zdev_relay_only_first (zdev_relay *self, int only_first);
/*  Take in a capture and a control socket after the start; one that the relay
    has already, or that is not to come, is given with the handle NULL.       */
void zdev_relay_join (zdev_relay *self, const zdev_end *capture,
                      const zdev_end *control);

/*  Give the capture socket copies, as from the start (1); or do without it (0),
    unless a message is parked.                                               */
void zdev_relay_copies (zdev_relay *self, int wanted);

/*  How many subscriptions the peers of this XPUB hold, by what it has told the
    relay: those that were made less those that were cancelled, at least 0. It
    is 0 for sockets of other types.                                          */
uint64_t zdev_relay_subscriptions (const zdev_relay *self, const void *handle);

/*  Copy the counters out.                                                    */
void zdev_relay_statistics (const zdev_relay *self, zdev_statistics *copy);

/* cdef: end */

#endif
