/*  load.c: what a device is loaded with. Producers, consumers, clients and echo
    workers, each on a thread of its own, so that Python is never the bottleneck.

    libzmq comes as a table of functions, like the relay's: it must be the very
    one that made the sockets. Sockets have a short timeout; a job whose socket
    timed out looks whether all is over.

    What is sent is a copy of one of some messages made beforehand: a malloc for
    each here, with a free by its consumer, would have the two threads wait for
    each other at the allocator's lock, more so the less the device takes.

    load.py hands the lines between the two "cdef" marks to CFFI.             */

#include <errno.h>
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* cdef: begin */

/*  The functions called, under the names that csrc/zdev.h gives them.        */

typedef struct {
    int (*get_errno) (void);
    int (*msg_init) (void *message);
    int (*msg_init_size) (void *message, size_t size);
    void *(*msg_data) (void *message);
    int (*msg_more) (const void *message);
    int (*msg_close) (void *message);
    int (*msg_copy) (void *to, void *message);
    int (*msg_recv) (void *message, void *socket, int flags);
    int (*msg_send) (void *message, void *socket, int flags);
} load_libzmq;

#define LOAD_PRODUCE 1      /*  sends messages as fast as it can              */
#define LOAD_CONSUME 2      /*  receives messages                             */
#define LOAD_CLIENT 3       /*  sends, receives replies, never more than
                                `window` of a socket under way                */
#define LOAD_ECHO 4         /*  sends back what it receives                   */
#define LOAD_PROBE 5        /*  sends messages that carry the time            */

/*  What one thread does. A background job goes on until the others are done,
    whatever its number of messages.                                          */

typedef struct {
    int kind;
    int background;
    void **sockets;         /*  several for a client, one for the others      */
    int count;
    int window;
    int64_t messages;
    int frames;
    size_t size;            /*  of each frame                                 */
    const char *address;    /*  one more frame before those; NULL for none    */
    int64_t interval;       /*  nanoseconds of sleep before each message      */
    int64_t *latency;       /*  where a client or consumer notes nanoseconds  */
    int64_t done;           /*  out: messages                                 */
    int error;              /*  out: an errno, or 0                           */
} load_job;

/*  Run the jobs, each on a thread; sets *elapsed to the nanoseconds until the
    last of those not in the background was done. Returns 0 or an errno.      */
int load_run (const load_libzmq *libzmq, load_job *jobs, int count,
              int64_t *elapsed);

/*  The bare minimum that a device must do: receive, look for more, send, until
    there is nothing left. Returns how many messages.                         */
int64_t load_floor (const load_libzmq *libzmq, void *from, void *to);

/*  The CPU clock of the calling thread, for clock_gettime(3).                */
int load_thread_clock (void);

/* cdef: end */

#define MAX_JOBS 16
#define DONTWAIT 1
#define SNDMORE 2
#define PATIENCE 30000000000    /*  nanoseconds without progress               */
#define STOCK 256               /*  messages made beforehand, as far as they   */
#define STOCK_BYTES (8 << 20)   /*  fit into this                              */

typedef struct {
    uint64_t data [8];
} message_t;

typedef struct {
    const load_libzmq *zmq;
    pthread_barrier_t start;
    int stop;
    int64_t began;
} run_t;

typedef struct {
    run_t *run;
    load_job *job;
    int64_t ended;
    int64_t progress;           /*  when it last got on                        */
    message_t stock [STOCK];
    int stocked;
    int next;
} task_t;

static int64_t
now (void)
{
    struct timespec time;
    clock_gettime (CLOCK_MONOTONIC, &time);
    return (int64_t) time.tv_sec * 1000000000 + time.tv_nsec;
}

/*  ----------------------------------------------------------------------
    A call failed: 0 to try again, 1 if all is over, else the errno.          */

static int
failure (task_t *task)
{
    int error = task->run->zmq->get_errno ();
    if (error == EINTR)
        return 0;
    if (error != EAGAIN)
        return error;
    if (__atomic_load_n (&task->run->stop, __ATOMIC_RELAXED))
        return ECANCELED;
    if (now () - task->progress > PATIENCE)
        return ETIMEDOUT;
    return 0;
}

static int
send_frame (task_t *task, message_t *message, void *socket, int more)
{
    while (task->run->zmq->msg_send (message, socket, more? SNDMORE: 0) < 0) {
        int error = failure (task);
        if (error) {
            task->run->zmq->msg_close (message);
            return error;
        }
    }
    return 0;
}

static int
recv_frame (task_t *task, message_t *message, void *socket)
{
    while (task->run->zmq->msg_recv (message, socket, 0) < 0) {
        int error = failure (task);
        if (error)
            return error;
    }
    return 0;
}

/*  ----------------------------------------------------------------------
    Send one message of the job; `stamp`, unless it is 0, goes in front of the
    last frame.                                                               */

static int
send_message (task_t *task, void *socket, int64_t stamp)
{
    const load_libzmq *zmq = task->run->zmq;
    load_job *job = task->job;
    message_t message;
    if (job->address) {
        size_t size = strlen (job->address);
        zmq->msg_init_size (&message, size);
        memcpy (zmq->msg_data (&message), job->address, size);
        int error = send_frame (task, &message, socket, 1);
        if (error)
            return error;
    }
    for (int left = job->frames; left > 0; left--) {
        if (stamp && left == 1) {
            zmq->msg_init_size (&message, job->size);
            memcpy (zmq->msg_data (&message), &stamp, sizeof stamp);
        }
        else {
            zmq->msg_init (&message);
            zmq->msg_copy (&message, &task->stock [task->next]);
            if (++task->next == task->stocked)
                task->next = 0;
        }
        int error = send_frame (task, &message, socket, left > 1);
        if (error)
            return error;
    }
    return 0;
}

/*  ----------------------------------------------------------------------
    Receive one message; the last frame is left in `message`.                 */

static int
recv_message (task_t *task, message_t *message, void *socket)
{
    do {
        int error = recv_frame (task, message, socket);
        if (error)
            return error;
    } while (task->run->zmq->msg_more (message));
    return 0;
}

static int
echo_message (task_t *task, message_t *message, void *socket)
{
    const load_libzmq *zmq = task->run->zmq;
    int more;
    do {
        int error = recv_frame (task, message, socket);
        if (error)
            return error;
        more = zmq->msg_more (message);
        error = send_frame (task, message, socket, more);
        zmq->msg_init (message);
        if (error)
            return error;
    } while (more);
    return 0;
}

/*  ----------------------------------------------------------------------
    Do the job's next message, a client's next reply and request.             */

static int
next_message (task_t *task, message_t *message, int64_t *sent)
{
    load_job *job = task->job;
    void *socket = job->sockets [job->done % job->count];
    int error = 0;
    if (job->interval) {
        struct timespec pause = { 0, job->interval };
        nanosleep (&pause, NULL);
    }
    switch (job->kind) {
        case LOAD_PRODUCE:
            return send_message (task, socket, 0);
        case LOAD_PROBE:
            return send_message (task, socket, now ());
        case LOAD_ECHO:
            return echo_message (task, message, socket);
        case LOAD_CONSUME:
            error = recv_message (task, message, socket);
            if (!error && job->latency) {
                int64_t stamp;
                memcpy (&stamp, task->run->zmq->msg_data (message), sizeof stamp);
                job->latency [job->done] = now () - stamp;
            }
            return error;
        default: {
            int64_t asked = job->latency? now (): 0;
            while (!error && *sent < job->messages
            &&  *sent - job->done < (int64_t) job->window * job->count) {
                error = send_message (task, job->sockets [*sent % job->count], 0);
                (*sent)++;
            }
            if (!error)
                error = recv_message (task, message, socket);
            if (!error && job->latency)
                job->latency [job->done] = now () - asked;
            return error;
        }
    }
}

static void *
work (void *argument)
{
    task_t *task = (task_t *) argument;
    load_job *job = task->job;
    message_t message;
    int64_t sent = 0;

    task->run->zmq->msg_init (&message);
    do {
        task->run->zmq->msg_init_size (&task->stock [task->stocked++], job->size);
    } while (task->stocked < STOCK
         &&  (size_t) (task->stocked + 1) * job->size <= STOCK_BYTES);
    pthread_barrier_wait (&task->run->start);
    job->done = job->error = 0;
    task->progress = now ();
    while (!job->error && (job->background || job->done < job->messages)) {
        if (job->background && (job->done & 63) == 0
        &&  __atomic_load_n (&task->run->stop, __ATOMIC_RELAXED))
            break;
        job->error = next_message (task, &message, &sent);
        if (!job->error && (++job->done & 255) == 0)
            task->progress = now ();
    }
    task->ended = now ();
    task->run->zmq->msg_close (&message);
    while (task->stocked > 0)
        task->run->zmq->msg_close (&task->stock [--task->stocked]);
    if (job->error == ECANCELED && job->background)
        job->error = 0;
    if (job->error)
        __atomic_store_n (&task->run->stop, 1, __ATOMIC_RELAXED);
    return NULL;
}

int
load_run (const load_libzmq *libzmq, load_job *jobs, int count,
          int64_t *elapsed)
{
    pthread_t threads [MAX_JOBS];
    task_t tasks [MAX_JOBS];
    run_t run = { .zmq = libzmq };
    if (count > MAX_JOBS)
        return EINVAL;

    pthread_barrier_init (&run.start, NULL, (unsigned) count + 1);
    for (int i = 0; i < count; i++) {
        tasks [i] = (task_t) { .run = &run, .job = &jobs [i] };
        if (pthread_create (&threads [i], NULL, work, &tasks [i]))
            abort ();           /*  those that wait at the barrier cannot be left */
    }
    pthread_barrier_wait (&run.start);
    run.began = now ();

    int error = 0;
    *elapsed = 0;
    for (int background = 0; background < 2; background++) {
        for (int i = 0; i < count; i++) {
            if (!jobs [i].background != !background)
                continue;
            pthread_join (threads [i], NULL);
            if (!background && tasks [i].ended - run.began > *elapsed)
                *elapsed = tasks [i].ended - run.began;
            if (jobs [i].error && (!error || error == ECANCELED))
                error = jobs [i].error;
        }
        __atomic_store_n (&run.stop, 1, __ATOMIC_RELAXED);
    }
    pthread_barrier_destroy (&run.start);
    return error;
}

int64_t
load_floor (const load_libzmq *libzmq, void *from, void *to)
{
    message_t message;
    int64_t messages = 0;
    libzmq->msg_init (&message);
    while (libzmq->msg_recv (&message, from, DONTWAIT) >= 0) {
        int more = libzmq->msg_more (&message);
        if (libzmq->msg_send (&message, to, DONTWAIT | (more? SNDMORE: 0)) < 0)
            break;
        messages += !more;
    }
    libzmq->msg_close (&message);
    return messages;
}

int
load_thread_clock (void)
{
    clockid_t clock;
    return pthread_getcpuclockid (pthread_self (), &clock)? -1: (int) clock;
}
