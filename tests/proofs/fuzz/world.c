/*  world.c: see world.h.                                                      */

#include "world.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { EFSM = 156384712 + 51, ETERM = 156384712 + 53 };
enum { DONTWAIT = 1, SNDMORE = 2, IN = 1, OUT = 2, OPTION_EVENTS = 15 };

/*  Polls in a row that may return, and calls that may be made, while nothing
    moves.                                                                     */
enum { MAX_IDLE_POLLS = 4, MAX_IDLE_CALLS = 400 };

/*  Milliseconds for which a relay may block that doubts what a socket shows.  */
enum { DOUBT = 50 };

/*  Messages of one run: an input must not take for ever.                      */
enum { MAX_MESSAGES = 300 };

/*  What frames begin with; those from LIMIT on are longer, by zeros.          */
static const char *const words[CONTENTS] = {
    "", "A", "B", "a body that libzmq would have to allocate", NULL,
    "PAUSE", "RESUME", "TERMINATE", "STATISTICS", "PAUSF",
    "\1", "\2", "", "\1", "\6CANCEL", "\11SUBSCRIBE"
};
static const size_t giant_size = (size_t) INT_MAX + 10;
static const size_t limit_size = 1 + 2048;

/*  A message of a peer.                                                       */
struct message {
    message *next;              /*  in the inbox                               */
    message *older;             /*  of all                                     */
    peer_socket *source;
    size_t frames;
    size_t taken;               /*  how many of them the relay has received    */
    int kind[3];                /*  of the first frames; the others are BODY   */
    int short_of_memory;        /*  when it was received                       */
    int uncopied;               /*  no memory for its copy                     */
};

/*  A zmq_msg_t. Its own address is in it, so that one which was moved is found
    out.                                                                       */
typedef struct {
    uint64_t magic;
    void *self;
    size_t size;
    unsigned char *data;        /*  NULL: empty, or a giant                    */
    message *origin;            /*  NULL: made by the relay                    */
    size_t index;               /*  which of its frames                        */
} content;

static const uint64_t magic = UINT64_C (0x5ce6a6fe1d2b3c4d);

struct world world;
static int last_errno;
static message *messages;       /*  all, the newest first                      */
static int message_count;
static message *last_received;
static message *copying;            /*  whose copy was begun last              */
static long live;               /*  zmq_msg_t that are initialised             */
static int idle_polls, idle_calls;
static unsigned dice;
static int whole_since_woken;
static const char *story = "new";
int world_trace;

static struct {
    int kind;                   /*  0: none is due; EMPTY + 1; STATISTICS      */
    message *command;
    size_t envelope;
    uint64_t body[8];
} answer;

void
violation (const char *format, ...)
{
    va_list arguments;
    va_start (arguments, format);
    fputs ("violation: ", stderr);
    vfprintf (stderr, format, arguments);
    fprintf (stderr, " (at %s)\n", story);
    va_end (arguments);
    abort ();
}

static int
fail (int error)
{
    last_errno = error;
    return -1;
}

static void
progress (void)
{
    idle_polls = idle_calls = 0;
}

/*  ----------------------------------------------------------------------
    Sockets                                                                   */

int
can_send (int type)
{
    return type != SUB && type != PULL;
}

int
can_receive (int type)
{
    return type != PUB && type != PUSH;
}

/*  Types that lose a message rather than refuse it.                           */
static int
lossy (int type)
{
    return type == ROUTER || type == REP || type == PUB || type == XPUB
        || type == XSUB;
}

static int
addressed (int type)
{
    return type == ROUTER || type == STREAM;
}

peer_socket *
world_socket (int role, int type)
{
    peer_socket *self = calloc (1, sizeof *self);
    self->type = type;
    self->role = role;
    self->fd = WAKEUP_FD + 1 + role;
    self->room = -1;
    self->awake = 1;
    self->inbox_end = &self->inbox;
    return self;
}

static int
may_receive (const peer_socket *self)
{
    return self->type == REP ? !self->answering
         : self->type == REQ ? self->answering : 1;
}

static int
may_send (const peer_socket *self)
{
    return self->type == REP ? self->answering
         : self->type == REQ ? !self->answering : 1;
}

static int
readable (const peer_socket *self)
{
    return self->inbox && !self->late && may_receive (self);
}

static int
writable (const peer_socket *self)
{
    int refuses = self->room == 0 && (self->mandatory || !lossy (self->type));
    return !self->full && !refuses && may_send (self);
}

static int
signalled (const peer_socket *self)
{
    return self->command_wake || self->command_unfill || self->command_room
        || (world.terminated && !self->told);
}

static void
process_commands (peer_socket *self)
{
    if (self->command_wake)
        self->awake = 1;
    if (self->command_unfill)
        self->full = 0;
    if (self->room >= 0)
        self->room += self->command_room;
    self->command_wake = self->command_unfill = self->command_room = 0;
}

static int
has_message (peer_socket *self)
{
    if (!may_receive (self))
        return 0;
    if (!readable (self))
        self->awake = 0;
    return self->awake;
}

static int
knows (const peer_socket *self, const content *address)
{
    if (!address->data)
        return 0;
    return address->data[0] == 'A' || (address->data[0] == 'B' && self->knows_b);
}

/*  ----------------------------------------------------------------------
    What happens: entries of the input, each at a call or when the relay blocks.
    A byte says when (5 bits) and what (3 bits).                              */

static int
byte (void)
{
    return world.next < world.end ? *world.next++ : 0;
}

static void
deliver (int role)
{
    static const unsigned char sizes[16] = { 1, 2, 3, 4, 1, 2, 15, 16,
                                             17, 18, 31, 32, 33, 34, 49, 3 };
    static const unsigned char times[16] = { 1, 1, 1, 1, 2, 2, 3, 3,
                                             4, 5, 6, 8, 17, 20, 33, 130 };
    int many = byte (), first = byte ();
    size_t frames = sizes[many & 15];
    int third = frames > 2 ? byte () : 0;
    peer_socket *to = world.socket[role];
    if (!to || !can_receive (to->type))
        return;
    for (int i = 0; i < times[many >> 4] && message_count < MAX_MESSAGES; i++) {
        message *self = calloc (1, sizeof *self);
        self->source = to;
        self->frames = frames;
        self->kind[0] = (first & 15) % CONTENTS;
        self->kind[1] = (first >> 4) % CONTENTS;
        self->kind[2] = third % CONTENTS;
        self->older = messages;
        messages = self;
        message_count++;
        *to->inbox_end = self;
        to->inbox_end = &self->next;
    }
    if (!to->awake)
        to->command_wake = 1;
}

static void
arm_fault (void)
{
    static const int errors[8] = { EINTR, EAGAIN, EAGAIN, EAGAIN, ENOTSOCK,
                                   EHOSTUNREACH, EFSM, ETERM };
    int where = byte (), what = byte ();
    struct fault *self = calloc (1, sizeof *self);
    self->call = (where & 7) % CALLS;
    self->role = (where >> 3) & 3;
    self->error = self->call == POLL ? (what & 1 ? ENOMEM : EINTR)
                : self->call > POLL ? ENOMEM : errors[what & 7];
    self->skip = what & 128 ? (what >> 3) & 15 : 0;
    self->next = world.faults;
    world.faults = self;
}

static void
next_event (void)
{
    int what = byte ();
    world.countdown = 0;
    switch (what & 7) {
        case 4: {
            int room = byte ();
            peer_socket *at = world.socket[room & 3];
            if (at)
                at->command_room += 1 + ((room >> 2) & 7);
            break;
        }
        case 5:
            if (!world.woken)
                whole_since_woken = 0;
            world.woken = 1;
            world.wanted = byte ();
            world.wanted |= byte () << 8;
            break;
        case 6:
            arm_fault ();
            break;
        case 7: {
            peer_socket *at = world.socket[byte () & 3];
            if (at)
                at->knows_b ^= 1;
            break;
        }
        default:
            deliver (what & 7);
    }
    if (world.next < world.end)
        world.countdown = *world.next >> 3;
    progress ();
}

int
world_time_passes (void)
{
    for (int role = 0; role < ROLES; role++) {
        peer_socket *self = world.socket[role];
        if (self && self->late) {
            self->late = 0;
            self->command_wake = 1;
            return 1;
        }
        if (self && self->full && !self->command_unfill) {
            self->command_unfill = 1;
            return 1;
        }
    }
    if (world.next == world.end)
        return 0;
    world.now += 8 * (*world.next >> 3);
    next_event ();
    return 1;
}

/*  ----------------------------------------------------------------------
    The ledger                                                                */

/*  In which place of a message that is sent on its frame of that index goes,
    and the other way round.                                                   */
static size_t
swapped (size_t place)
{
    return world.swap && place < 2 ? 1 - place : place;
}

static ledger *
way_of (const peer_socket *source)
{
    for (int i = 0; i < WAYS; i++)
        if (world.way[i].source && world.way[i].source == source)
            return &world.way[i];
    return NULL;
}

static int
kind_of (const message *self, size_t index)
{
    return index < 3 ? self->kind[index] : BODY;
}

static size_t
size_of (const message *self, size_t index)
{
    int kind = kind_of (self, index);
    return kind == GIANT ? giant_size
         : kind < LIMIT ? strlen (words[kind]) : limit_size + (kind > LIMIT);
}

static uint64_t
bytes_of (const message *self)
{
    uint64_t bytes = 0;
    for (size_t index = 0; index < self->frames; index++)
        bytes += size_of (self, index);
    return bytes;
}

/*  ----------------------------------------------------------------------
    Waits                                                                     */

int
world_waited_long (const ledger *way)
{
    return world.long_wait && way->since
        && world.now - way->since >= (uint64_t) world.long_wait;
}

/*  The relay notes the time when it tries again, so not while it is paused.   */
static void
wait_begins (ledger *way)
{
    if (way->since)
        return;
    way->since = world.now;
    way->vague = world.paused;
}

static void
wait_ends (ledger *way)
{
    world.news |= world_waited_long (way);
    world.due |= way->told == TOLD;
    way->since = 0;
    way->vague = 0;
    way->told = UNTOLD;
}

void
world_pause (int paused)
{
    world.paused = paused;
    for (int i = 0; i < ASIDE; i++)
        if (paused && world.way[i].since == world.now)
            world.way[i].vague = 1;
}

/*  May the relay block for so long? Not when it has to tell of a long wait.   */
static void
expect_told (int timeout)
{
    int most = world.long_wait < DOUBT ? DOUBT : world.long_wait;
    DEMAND (!world.due || world.timeout >= 0,
            "it waits, and has not told that a long wait is over");
    for (int i = 0; i < ASIDE && world.long_wait && !world.paused; i++) {
        ledger *way = &world.way[i];
        if (!way->since || way->vague)
            continue;
        if (world_waited_long (way)) {
            DEMAND (way->told, "it waits, and has not told of a long wait");
            way->told = TOLD;
        }
        else
            DEMAND (timeout > 0 && timeout <= most,
                    "it blocks past the time to tell of a long wait");
    }
}

static void
lose (ledger *way, uint64_t *counter)
{
    (*counter)++;
    wait_ends (way);
    way->held = NULL;
    way->source->owes = way->source->type == REP;
}

static int
unroutable (const ledger *way, const message *m)
{
    int type = way->destination->type;
    if (world.swap && m->frames < 2)
        return 1;
    if (!addressed (type))
        return 0;
    return size_of (m, swapped (0)) == 0
        || (type == ROUTER ? m->frames < 2 : m->frames != 2);
}

static int
harmful (const ledger *way, const message *m)
{
    int found = 0;
    int first = kind_of (m, swapped (0));
    /*  LIMIT subscribes too, to no more than is allowed                       */
    if (world.only_first && first < UNSUBSCRIBE && first != LIMIT
    &&  !(first == GIANT && swapped (0) % 2 == 1))
        return 0;
    for (size_t index = 0; index < m->frames; index++) {
        int kind = kind_of (m, index);
        found |= kind >= UNSUBSCRIBE || (kind == GIANT && index % 2 == 1);
    }
    return found && way->destination->type == XSUB;
}

/*  Its last frame may make or cancel a subscription of an XPUB's peers.       */
static void
count_subscription (const message *m)
{
    size_t last = m->frames - 1;
    int kind = kind_of (m, last);
    int made = kind == LIMIT || kind == SUBSCRIBE
            || (kind == GIANT && last % 2 == 1);
    if (m->source->type != XPUB || m->short_of_memory
    ||  (world.only_first && last > 0))
        return;
    if (made)
        m->source->subscriptions++;
    else
    if (kind == UNSUBSCRIBE && m->source->subscriptions)
        m->source->subscriptions--;
}

static void
received_message (ledger *way, message *m)
{
    way->count.messages_received++;
    way->count.frames_received += m->frames;
    way->count.bytes_received += bytes_of (m);
    way->held = m;
    way->refused = 0;
    if (!way->destination || m->short_of_memory)
        lose (way, &way->count.dropped);
    else
    if (unroutable (way, m))
        lose (way, &way->count.unroutable);
    else
    if (harmful (way, m))
        lose (way, &way->count.dropped);
}

static void
received_command (message *m)
{
    peer_socket *control = m->source;
    size_t count = m->short_of_memory ? 0 : m->frames;
    size_t envelope = control->type == ROUTER;
    int asked = control->type == REP;
    int router_or_dealer = control->type == ROUTER || control->type == DEALER;
    if (router_or_dealer && count > envelope + 1
    &&  size_of (m, envelope) == 0) {
        envelope++;
        asked = 1;
    }
    int word = count > envelope ? kind_of (m, envelope) : NONSENSE;
    answer.command = m;
    answer.envelope = envelope;
    answer.kind = asked ? EMPTY + 1 : 0;
    switch (word) {
        case PAUSE:
            world_pause (1);
            break;
        case RESUME:
            world_pause (0);
            break;
        case TERMINATE:
            world.finished = 1;
            break;
        case STATISTICS:
            if (can_send (control->type)) {
                const zdev_counters *there = &world.way[THERE].count;
                const zdev_counters *back = &world.way[BACK].count;
                const uint64_t body[8] = {
                    there->frames_received, there->bytes_received,
                    back->frames_sent, back->bytes_sent,
                    back->frames_received, back->bytes_received,
                    there->frames_sent, there->bytes_sent
                };
                memcpy (answer.body, body, sizeof body);
                answer.kind = STATISTICS;
            }
    }
}

static void
sent_message (ledger *way, message *m)
{
    way->count.messages_sent++;
    way->count.frames_sent += m->frames;
    way->count.bytes_sent += bytes_of (m);
    way->held = NULL;
    wait_ends (way);
    if (!world.socket[CAPTURE] || !world.copies)
        return;
    if (m->uncopied || (world.capture_drop && world.socket[CAPTURE]->failed))
        world.capture_dropped++;
    else
        way->copy = m;
}

static int same (const content *self, const void *data, size_t size);

/*  What a frame that is sent to a socket is part of.                          */
typedef struct {
    enum { TRAFFIC, COPY_OF, ANSWER, REPLY } what;
    ledger *way;                /*  NULL: not yet known                        */
} purpose;

static int
ways_with_prefix (const content *frame)
{
    int ways = 0;
    for (int i = 0; i < ASIDE; i++) {
        const ledger *way = &world.way[i];
        if (way->copy && way->prefix
        &&  same (frame, way->prefix, way->prefix_size))
            ways |= 1 << i;
    }
    return ways;
}

/*  A frame of a copy: it must be the next of `[prefix, *frames as sent on]`.   */
static purpose
check_copy (peer_socket *to, const content *frame, int more)
{
    purpose self = { COPY_OF, NULL };
    message *m = frame->origin;
    if (to->place == 0 && !m) {
        to->behind = ways_with_prefix (frame);
        DEMAND (to->behind && more, "a prefix and no copy due behind it");
        if (to->behind != 3)
            self.way = &world.way[to->behind >> 1];
        return self;
    }
    DEMAND (m, "the capture gets a frame of nobody's");
    self.way = way_of (m->source);
    DEMAND (self.way, "the capture gets what is no traffic");
    size_t prefix = self.way->prefix != NULL;
    if (to->place <= prefix && !to->dropping) {
        DEMAND (to->place == prefix, "a copy without its prefix");
        DEMAND (!prefix || to->behind & (1 << (self.way - world.way)),
                "a copy with the other way's prefix");
        DEMAND (self.way->copy == m, "a copy of what was not sent on just now");
    }
    else
        DEMAND (to->current == m, "a copy begins in the middle of another");
    DEMAND (frame->index == swapped (to->place - prefix),
            "a copy's frames are out of order");
    DEMAND (more == (to->place - prefix + 1 < m->frames), "a copy is cut");
    return self;
}

static purpose
check_answer (peer_socket *to, const content *frame, int more)
{
    size_t frames = answer.envelope + (answer.kind == STATISTICS ? 8 : 1);
    DEMAND (answer.kind, "nobody on the control socket waits for an answer");
    if (to->place < answer.envelope)
        DEMAND (frame->origin == answer.command && frame->index == to->place,
                "an answer's envelope is wrong");
    else {
        size_t size = answer.kind == STATISTICS ? sizeof *answer.body : 0;
        DEMAND (!frame->origin
                && same (frame, &answer.body[to->place - answer.envelope], size),
                "a wrong answer");
    }
    DEMAND (more == (to->place + 1 < frames), "an answer is cut");
    return (purpose) { ANSWER, NULL };
}

/*  Is this the frame that the socket must get now?                            */
static purpose
check_frame (peer_socket *to, const content *frame, int more)
{
    message *m = frame->origin;
    if (to->role == CAPTURE)
        return check_copy (to, frame, more);
    if (to->role == CONTROL)
        return check_answer (to, frame, more);
    if (!m) {
        DEMAND (to->type == REP && to->owes && frame->size == 0 && !more
                && to->place == 0, "a frame of nobody's");
        return (purpose) { REPLY, NULL };
    }
    ledger *way = way_of (m->source);
    DEMAND (way && way->destination == to, "a message goes the wrong way");
    DEMAND (m->taken == m->frames, "a frame is sent before its message is whole");
    if (to->dropping)
        DEMAND (to->current == m, "a message is swallowed");
    else
        DEMAND (way->held == m && (to->place == 0 || to->current == m),
                "a message is sent twice, or in another");
    DEMAND (frame->index == swapped (to->place), "frames are out of order");
    DEMAND (more == (to->place + 1 < m->frames), "a message is cut or merged");
    return (purpose) { TRAFFIC, way };
}

static void
sent_whole (peer_socket *to, purpose self, message *m)
{
    if (to->room > 0)
        to->room--;
    if (to->type == REP || to->type == REQ)
        to->answering = to->type == REQ;
    switch (self.what) {
        case TRAFFIC:
            sent_message (self.way, m);
            break;
        case COPY_OF:
            world.capture_sent++;
            self.way->copy = NULL;
            wait_ends (self.way);
            break;
        case ANSWER:
            answer.kind = 0;
            break;
        case REPLY:
            to->owes = 0;
    }
}

static void
accepted (peer_socket *to, purpose self, message *m, int more)
{
    to->place++;
    to->current = m;
    to->doubtful = 0;
    if (more)
        return;
    if (!to->dropping)
        sent_whole (to, self, m);
    else
    if (self.what == ANSWER)
        answer.kind = 0;
    to->place = 0;
    to->current = NULL;
    to->dropping = 0;
}

static void
refused (peer_socket *to, purpose self, message *m, int more, int error)
{
    int first = to->place == 0;
    int peer = error == EAGAIN || error == EHOSTUNREACH;
    if (error == EINTR)
        return;
    if (self.what == TRAFFIC && !to->dropping) {
        zdev_counters *count = &self.way->count;
        if (!first)
            lose (self.way, &count->dropped);
        else
        if (error == EHOSTUNREACH || (error == EFSM && to->type == REP))
            lose (self.way, &count->unroutable);
        else
        if (self.way->drop && (error == EAGAIN || error == EFSM)
        &&  self.way->refused++) {
            lose (self.way, &count->overflowed);
            world.overflowed = 1;
        }
        else
            wait_begins (self.way);
    }
    if (self.what == COPY_OF && !to->dropping
    &&  (world.capture_drop || error == EHOSTUNREACH || (peer && !first))) {
        DEMAND (self.way, "which copy was refused?");
        self.way->copy = NULL;
        wait_ends (self.way);
        world.capture_dropped++;
    }
    else
    if (self.what == COPY_OF && !to->dropping && self.way)
        wait_begins (self.way);
    if (self.what == COPY_OF && to->dropping && !peer && !world.capture_drop) {
        /*  what is cut by an error that ends the relay counts as parked       */
        self.way->copy = m;
        world.capture_dropped--;
    }
    if (self.what == REPLY)
        to->owes = 0;
    if (self.what == ANSWER && (first || !peer || to->type == PAIR || !more))
        answer.kind = 0;
    if (first || !peer)
        return;
    to->dropping = more && to->type != PAIR;
    to->place = to->dropping ? to->place + 1 : 0;
    to->current = to->dropping ? m : NULL;
}

/*  ----------------------------------------------------------------------
    Calls that can fail                                                       */

static int
could_fail (int call, const peer_socket *at, const content *frame, int error)
{
    switch (call) {
        case POLL:
            return error == EINTR || error == ENOMEM;
        case COPY:
        case INIT_SIZE:
        case MEMORY:
            return error == ENOMEM;
    }
    if (error == EINTR || error == ETERM || error == ENOTSOCK)
        return 1;
    if (call == RECV && readable (at)) {
        int begun = at->inbox->taken > 0;
        return error == EAGAIN
            || (error == EFSM && (at->type == REQ || at->type == REP) && !begun);
    }
    if (call != SEND)
        return 0;
    if (at->place > 0)
        return error == EAGAIN && (at->type == PUSH || at->type == DEALER
                                   || at->type == PAIR);
    if (at->type == REP && at->owes)
        return error == EFSM || error == EAGAIN || error == EHOSTUNREACH;
    if (!writable (at))
        return 0;
    return (error == EAGAIN && (at->mandatory || !lossy (at->type)))
        || (error == EHOSTUNREACH && at->mandatory && addressed (at->type)
            && knows (at, frame))
        || (error == EFSM && at->type == REQ);
}

/*  Be in the state in which libzmq gives this error.                          */
static void
suffer (int call, peer_socket *at, int error)
{
    progress ();
    if (error == ETERM)
        world.terminated = 1;
    else
    if (error == ENOTSOCK)
        at->closed = 1;
    else
    if (call == RECV && error == EAGAIN) {
        process_commands (at);
        at->late = 1;
        at->awake = 0;
    }
    else
    if (call == SEND && at->type == REP && error != EINTR)
        at->answering = 0;
    else
    if (call == SEND && error == EAGAIN && at->place == 0)
        at->full = at->doubtful = 1;
    else
    if (call == SEND && error == EFSM)
        at->doubtful = 1;
}

/*  Every call that can fail comes by here; returns its error, or 0.           */
static int
enter (int call, peer_socket *at, const content *frame)
{
    static const char *const names[CALLS] = {
        "recv", "send", "events", "poll", "copy", "init_size", "memory"
    };
    static const char *const roles[ROLES] = {
        "frontend", "backend", "capture", "control"
    };
    int error = 0;
    story = names[call];
    DEMAND (++idle_calls < MAX_IDLE_CALLS, "many calls, and nothing moves");
    if (world.countdown > 0 && --world.countdown == 0
    &&  world.next < world.end)
        next_event ();
    DEMAND (!at || !at->failed || at->role != CAPTURE || !world.capture_drop,
            "a capture that failed is used");
    int dead = at && (at->closed || world.terminated);
    for (struct fault **link = &world.faults; *link && !dead;
         link = &(*link)->next) {
        struct fault *fault = *link;
        if (fault->call != call || (at && fault->role != at->role)
        ||  !could_fail (call, at, frame, fault->error) || fault->skip-- > 0)
            continue;
        error = fault->error;
        *link = fault->next;
        free (fault);
        suffer (call, at, error);
        break;
    }
    if (at && !error && world.terminated)
        error = ETERM;
    if (at && !error && at->closed)
        error = ENOTSOCK;
    if (error == ETERM || error == ENOTSOCK) {
        at->failed = at->told = 1;
        if (at->role != CAPTURE || !world.capture_drop)
            world.fatal = error;
    }
    if (call == POLL && error == EINTR)
        world.interrupted = 1;
    if (call == POLL && error && error != EINTR)
        world.fatal = error;
    if (world_trace)
        fprintf (stderr, "%s %s: %s\n", story,
                 at ? roles[at->role] : "", error ? strerror (error) : "");
    return error;
}

/*  ----------------------------------------------------------------------
    Messages                                                                  */

static content *
content_of (const void *address)
{
    content *self = (content *) address;
    DEMAND (self->magic == magic, "a message is used that is not initialised");
    DEMAND (self->self == address, "a message was moved");
    return self;
}

static void
fill (content *self, const void *data, size_t size, message *origin,
      size_t index)
{
    free (self->data);
    self->data = NULL;
    self->size = size;
    self->origin = origin;
    self->index = index;
    if (size > 0 && size < giant_size) {
        self->data = calloc (1, size);
        if (data)
            memcpy (self->data, data, size);
    }
}

static int
same (const content *self, const void *data, size_t size)
{
    return self->size == size
        && (size == 0 || memcmp (self->data, data, size) == 0);
}

static int
scripted_errno (void)
{
    return last_errno;
}

static int
msg_init (void *address)
{
    content *self = address;
    DEMAND (self->magic != magic || self->self != address,
            "a message is initialised twice");
    *self = (content) { .magic = magic, .self = address };
    live++;
    return 0;
}

static int
msg_init_size (void *address, size_t size)
{
    int error = enter (INIT_SIZE, NULL, NULL);
    if (error) {
        world.no_memory = 1;
        answer.kind = 0;        /*  if it was for one: without                 */
        return fail (error);
    }
    msg_init (address);
    fill (content_of (address), NULL, size, NULL, 0);
    return 0;
}

static void *
msg_data (void *address)
{
    static char giants[2][11] = { "a giant...", "\1 giant..." };
    content *self = content_of (address);
    if (self->data || self->size == 0)
        return self->data ? (void *) self->data : address;
    const ledger *way = way_of (self->origin->source);
    DEMAND ((way && way->destination && way->destination->type == XSUB)
            || self->origin->source->type == XPUB,
            "who looks into a giant frame?");
    return giants[self->index % 2];
}

static size_t
msg_size (const void *address)
{
    return content_of (address)->size;
}

static int
msg_more (const void *address)
{
    const content *self = content_of (address);
    return self->origin && self->index + 1 < self->origin->frames;
}

/*  The message that a frame is of which is copied now; a prefix is that of what
    is held in its way.                                                        */
static message *
copied_now (const content *frame)
{
    if (frame->origin)
        return frame->origin;
    for (int i = 0; i < ASIDE; i++) {
        const ledger *way = &world.way[i];
        if (way->held && way->prefix
        &&  same (frame, way->prefix, way->prefix_size))
            return way->held;
    }
    return last_received;
}

static int
msg_copy (void *to, void *from)
{
    content *copy = content_of (to);
    const content *self = content_of (from);
    copying = copied_now (self);
    int error = enter (COPY, NULL, NULL);
    DEMAND (copy->size == 0 && !copy->origin, "a copy is made over a frame");
    if (error) {
        copying->uncopied = 1;
        return fail (error);
    }
    fill (copy, self->data, self->size, self->origin, self->index);
    return 0;
}

static int
msg_close (void *address)
{
    content *self = content_of (address);
    free (self->data);
    memset (address, 0xff, sizeof *self);
    live--;
    return 0;
}

/*  The relay's own malloc and calloc.                                         */
void *
scripted_malloc (size_t size)
{
    if (enter (MEMORY, NULL, NULL) == 0)
        return malloc (size);
    if (last_received->taken < last_received->frames)
        last_received->short_of_memory = 1;
    else
        copying->uncopied = 1;
    return NULL;
}

void *
scripted_calloc (size_t count, size_t size)
{
    if (enter (MEMORY, NULL, NULL) == 0)
        return calloc (count, size);
    world.no_memory = 1;
    return NULL;
}

/*  ----------------------------------------------------------------------
    Sockets' calls                                                            */

static int
msg_recv (void *address, void *handle, int flags)
{
    peer_socket *from = handle;
    content *frame = content_of (address);
    DEMAND (flags == DONTWAIT, "a receive that may block");
    DEMAND (!world.looking, "a look that receives");
    DEMAND (can_receive (from->type), "a receive on what cannot");
    DEMAND (frame->size == 0 && !frame->origin, "a receive over a frame");
    int error = enter (RECV, from, NULL);
    if (error)
        return fail (error);
    if (!may_receive (from))
        return fail (EFSM);
    if (!has_message (from)) {
        process_commands (from);
        if (!has_message (from))
            return fail (EAGAIN);
    }
    message *m = from->inbox;
    ledger *way = way_of (from);
    DEMAND (way || from->role == CONTROL, "a receive that leads nowhere");
    if (way) {
        DEMAND (!world.paused, "a receive while paused");
        DEMAND (!way->held && !way->copy, "a receive while a message is parked");
        DEMAND (!way->shut, "a receive from what is to be left unread");
    }
    else
        DEMAND (!answer.kind, "a command before the last one was answered");
    size_t index = m->taken++;
    const char *word = words[kind_of (m, index)];
    size_t size = size_of (m, index);
    fill (frame, NULL, size, m, index);
    if (frame->data)
        memcpy (frame->data, word, strlen (word));
    last_received = m;
    progress ();
    if (m->taken == m->frames) {
        from->inbox = m->next;
        if (!m->next)
            from->inbox_end = &from->inbox;
        if (from->type == REP || from->type == REQ)
            from->answering = from->type == REP;
        count_subscription (m);
        if (way)
            received_message (way, m);
        else
            received_command (m);
        /*  a burst each way and of commands, twice                            */
        DEMAND (!world.woken || world.timeout == 0 || world.real_poll
                || ++whole_since_woken <= 4 * world.burst + 32,
                "woken, it goes on and on");
    }
    return size < INT_MAX ? (int) size : INT_MAX;
}

/*  The first frame of a message, or one of the others.                        */
static int
begin (peer_socket *to, const content *address)
{
    dice = dice * 1103515245 + 12345;
    if (world.throttle == 0 || (world.throttle > 1 && dice & 0x10000))
        process_commands (to);
    if (to->dropping || to->place > 0)
        return 0;
    if (!may_send (to))
        return EFSM;
    if (to->mandatory && addressed (to->type) && !knows (to, address))
        return EHOSTUNREACH;
    if (writable (to))
        return 0;
    to->doubtful = to->type == PUB || to->type == XPUB;
    return EAGAIN;
}

static int
msg_send (void *address, void *handle, int flags)
{
    peer_socket *to = handle;
    content *frame = content_of (address);
    int more = (flags & SNDMORE) != 0;
    DEMAND ((flags & ~SNDMORE) == DONTWAIT, "a send that may block");
    DEMAND (!world.looking, "a look that sends");
    DEMAND (can_send (to->type), "a send on what cannot");
    purpose self = { REPLY, NULL };
    int dead = to->failed;
    if (!dead)
        self = check_frame (to, frame, more);
    int error = enter (SEND, to, frame);
    if (!error)
        error = begin (to, frame);
    message *m = frame->origin;
    if (error) {
        if (!dead)
            refused (to, self, m, more, error);
        else
            to->owes = 0;
        return fail (error);
    }
    size_t size = frame->size;
    accepted (to, self, m, more);
    fill (frame, NULL, 0, NULL, 0);
    progress ();
    return size < INT_MAX ? (int) size : INT_MAX;
}

static int
scripted_getsockopt (void *handle, int option, void *value, size_t *size)
{
    peer_socket *at = handle;
    DEMAND (option == OPTION_EVENTS && *size == sizeof (int),
            "a strange option");
    int error = enter (EVENTS, at, NULL);
    if (error)
        return fail (error);
    process_commands (at);
    int events = 0;
    if (can_receive (at->type) && has_message (at))
        events |= IN;
    /*  PUB and XPUB always show it, whatever XPUB_NODROP says                 */
    if (at->type == PUB || at->type == XPUB
    ||  (can_send (at->type) && writable (at)))
        events |= OUT;
    *(int *) value = events;
    return 0;
}

/*  ----------------------------------------------------------------------
    Waiting                                                                   */

int
world_signalled (void)
{
    for (int role = 0; role < ROLES; role++)
        if (world.socket[role] && !world.socket[role]->failed
        &&  signalled (world.socket[role]))
            return 1;
    return world.woken;
}

/*  Its POLLOUT means nothing: only a timer brings the relay back to it.       */
static int
doubtful (const peer_socket *self)
{
    return self->doubtful || self->type == ROUTER;
}

/*  What could move, if anything; timed: but for what a timer is for.          */
const char *
world_movable (int timed)
{
    const peer_socket *capture = world.socket[CAPTURE];
    const peer_socket *control = world.socket[CONTROL];
    if (control && readable (control))
        return "the control socket has a message";
    for (int i = 0; i < WAYS && !world.paused; i++) {
        const ledger *way = &world.way[i];
        if (!way->source || way->source->failed)
            continue;
        if (way->held && writable (way->destination)
        &&  !(timed && doubtful (way->destination)))
            return "a destination has room";
        if (way->copy && writable (capture) && !(timed && doubtful (capture)))
            return "the capture has room";
        if (!way->held && !way->copy && !way->shut && readable (way->source))
            return "a source has a message";
    }
    return NULL;
}

void
world_expect_quiet (void)
{
    DEMAND (!answer.kind || world.fatal, "an answer is due");
    for (int i = 0; i < WAYS; i++)
        DEMAND (!world.way[i].copy || !world.capture_drop,
                "a copy waits that should be dropped");
    for (int i = 0; i < ASIDE; i++)
        DEMAND (!world.way[i].held || !world.way[i].drop || world.fatal,
                "a message waits that should be dropped");
    for (int role = 0; role < ROLES; role++) {
        const peer_socket *at = world.socket[role];
        if (at && !at->failed && !world.fatal) {
            DEMAND (at->place == 0, "a message was begun and not ended");
            DEMAND (!at->owes, "a request is lost and not replied to");
        }
    }
}

static int
show_readable (struct pollfd *items, unsigned long count)
{
    int ready = 0;
    for (unsigned long i = 0; i < count; i++) {
        items[i].revents = 0;
        if (items[i].fd == WAKEUP_FD && world.wakeup_closed)
            items[i].revents = POLLNVAL;
        if (items[i].fd == WAKEUP_FD && world.woken)
            items[i].revents = POLLIN;
        for (int role = 0; role < ROLES; role++) {
            const peer_socket *at = world.socket[role];
            if (at && at->fd == items[i].fd && signalled (at))
                items[i].revents = POLLIN;
        }
        ready += items[i].revents != 0;
    }
    return ready;
}

static int
scripted_poll (void *address, unsigned long count, int timeout)
{
    struct pollfd *items = address;
    DEMAND (!world.looking, "a look that may block");
    int error = enter (POLL, NULL, NULL);
    world_expect_quiet ();
    if (error)
        return fail (error);
    int waited = 0;
    for (unsigned long i = 0; i < count; i++)
        waited += items[i].fd == WAKEUP_FD ? 1 << ROLES : 0;
    for (int role = 0; role < ROLES; role++) {
        const peer_socket *at = world.socket[role];
        int seen = !at || at->failed;
        for (unsigned long i = 0; i < count; i++)
            seen |= at && items[i].fd == at->fd && items[i].events & POLLIN;
        waited += seen ? 1 << role : 0;
    }
    DEMAND (waited == (2 << ROLES) - 1, "a descriptor is not waited on");
    if (timeout == 0)
        return show_readable (items, count);
    DEMAND (!world.overflowed || world.timeout >= 0,
            "it waits, and has not told of an overflow");
    DEMAND (++idle_polls <= MAX_IDLE_POLLS,
            "poll returns again and again, and nothing moves");
    expect_told (timeout);
    int timed = timeout > 0 && timeout <= DOUBT;
    uint64_t until = world.now + (timeout > 0 ? (uint64_t) timeout : 0);
    while (!show_readable (items, count)) {
        const char *movable = world_movable (timed);
        DEMAND (!movable, "blocked, and %s", movable);
        if (world_time_passes ()) {
            progress ();
            if (timeout > 0) {
                if (world.now > until)
                    world.now = until;
                break;
            }
        }
        else
        if (timeout > 0 && idle_polls < MAX_IDLE_POLLS) {
            world.now = until;
            break;
        }
        else
            world.over = world.woken = 1;
    }
    return show_readable (items, count);
}

static uint64_t
scripted_clock (void)
{
    DEMAND (world.long_wait, "no wait is long, and it reads the clock");
    return world.now;
}

const zdev_libzmq world_table = {
    scripted_errno, msg_init, msg_init_size, msg_data, msg_size, msg_more,
    msg_copy, msg_close, msg_recv, msg_send, scripted_getsockopt, scripted_poll,
    scripted_clock
};

/*  ----------------------------------------------------------------------
    The beginning and the end                                                 */

/*  For so long, its caller is told, something of that way has waited.         */
static void
expect_seconds (const ledger *way, double actual)
{
    uint64_t waited = world.long_wait && way->since ? world.now - way->since : 0;
    double most = (double) waited / 1000;
    int vague = way->vague || world.fatal;
    if (world.real_poll)        /*  and the system's clock                     */
        most = way->since ? 60 : 0;
    DEMAND (actual == most || (actual >= 0 && actual < most
                               && (vague || world.real_poll)),
            "way %d has waited for %f seconds, not for %f",
            (int) (way - world.way), actual, most);
}

void
world_expect_counts (const zdev_statistics *actual)
{
    const zdev_counters *counted[] = { &actual->there, &actual->back };
    uint64_t copies = 0;
    double copies_seconds = 0;
    for (int i = 0; i < ASIDE; i++) {
        ledger *way = &world.way[i];
        zdev_counters *mine = &way->count;
        mine->parked = way->held != NULL;
        copies += way->copy != NULL;
        expect_seconds (way, counted[i]->parked_seconds);
        mine->parked_seconds = counted[i]->parked_seconds;
        if (way->copy && copies_seconds < mine->parked_seconds)
            copies_seconds = mine->parked_seconds;
        DEMAND (memcmp (mine, counted[i], sizeof *mine) == 0,
                "way %d is miscounted:\n"
                "received %ju sent %ju dropped %ju unroutable %ju "
                "overflowed %ju parked %ju, not %ju %ju %ju %ju %ju %ju, "
                "or their frames or bytes", i,
                (uintmax_t) counted[i]->messages_received,
                (uintmax_t) counted[i]->messages_sent,
                (uintmax_t) counted[i]->dropped,
                (uintmax_t) counted[i]->unroutable,
                (uintmax_t) counted[i]->overflowed,
                (uintmax_t) counted[i]->parked,
                (uintmax_t) mine->messages_received,
                (uintmax_t) mine->messages_sent, (uintmax_t) mine->dropped,
                (uintmax_t) mine->unroutable, (uintmax_t) mine->overflowed,
                (uintmax_t) mine->parked);
        DEMAND (mine->messages_received == mine->messages_sent + mine->dropped
                                           + mine->unroutable + mine->overflowed
                                           + mine->parked,
                "a message is not accounted for");
    }
    DEMAND (actual->capture_sent == world.capture_sent
            && actual->capture_dropped == world.capture_dropped
            && actual->capture_parked == copies
            && actual->capture_parked_seconds == copies_seconds,
            "copies are miscounted: sent %ju dropped %ju parked %ju, "
            "not %ju %ju %ju", (uintmax_t) actual->capture_sent,
            (uintmax_t) actual->capture_dropped,
            (uintmax_t) actual->capture_parked, (uintmax_t) world.capture_sent,
            (uintmax_t) world.capture_dropped, (uintmax_t) copies);
}

void
world_open (void)
{
    memset (&world, 0, sizeof world);
    memset (&answer, 0, sizeof answer);
    live = 0;
    message_count = 0;
    last_received = NULL;
    copying = NULL;
    dice = 1;
    world.now = 1;
    world.copies = 1;
    progress ();
}

void
world_close (void)
{
    DEMAND (live == 0, "%ld messages are not closed", live);
    while (messages) {
        message *older = messages->older;
        free (messages);
        messages = older;
    }
    while (world.faults) {
        struct fault *next = world.faults->next;
        free (world.faults);
        world.faults = next;
    }
    for (int role = 0; role < ROLES; role++)
        if (role != BACKEND || world.socket[BACKEND] != world.socket[FRONTEND])
            free (role < CAPTURE ? world.socket[role] : world.aside[role]);
    memset (&world, 0, sizeof world);
}
