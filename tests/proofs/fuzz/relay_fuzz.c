/*  relay_fuzz.c: the C loop, driven by arbitrary bytes.

    The input's first bytes say what the relay joins, the others what happens
    and when: which messages come, which peers have room, which call fails with
    which error, when memory is short, how time passes, when the owner wakes the
    relay and what it does then. world.c is the libzmq behind it. It ends the process when the
    relay touches a message that is not initialised or was moved, forgets to
    close one, may block in a call, cuts, merges, swaps or repeats a message,
    does not count one, or a subscription, blocks while something could move, spins, reads what is
    shut, or does not tell of a long wait.

    To build, run and measure it:       tests/proofs/fuzz/run run 60
    To run one input, say a crash:      tests/proofs/fuzz/run build DIR; TRACE=1 DIR/fuzz INPUT
    To take what is found into corpus/: tests/proofs/fuzz/run grow 600

    Branches of csrc/ that cannot be taken; tests/proofs/fuzz/run run reads these lines.
    An answer is due only where none was tried, so none has failed:
        unreachable: if (asked && rc == 0)
 */

#include "world.h"

#include <errno.h>
#include <limits.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { HEADER = 9 };

int LLVMFuzzerInitialize (int *count, char ***arguments);
int LLVMFuzzerTestOneInput (const uint8_t *data, size_t size);

/*  May these be two ends of one device? As zdev.Relay has it.                 */
static int
fit (int one, int other, int single)
{
    if (single)
        return can_send (one) && can_receive (one) && one != REQ;
    int there = can_receive (one) && can_send (other);
    int back = can_receive (other) && can_send (one);
    int turns = one == REQ || one == REP || other == REQ || other == REP;
    if (!there && !back)
        return 0;
    if (one == other && turns)
        return 0;
    if (turns && (!there || !back))
        return 0;
    return 1;
}

static void
open_way (int which, int from, int to, const char *prefix, size_t size)
{
    ledger *way = &world.way[which];
    if (!can_receive (world.socket[from]->type))
        return;
    way->source = world.socket[from];
    way->destination = can_send (world.socket[to]->type) ? world.socket[to]
                                                         : NULL;
    way->prefix = prefix;
    way->prefix_size = size;
}

/*  A capture or control socket that was aside serves from now on.             */
static zdev_end
joined (int role)
{
    peer_socket *at = world.aside[role];
    if (!at || world.socket[role])
        return (zdev_end) { NULL, 0, 0 };
    world.socket[role] = at;
    if (role == CAPTURE) {
        world.copies = 1;
        if (at->type == XPUB)
            world.way[ASIDE].source = at;
    }
    return (zdev_end) { at, at->type, world.real_poll ? -1 : at->fd };
}

/*  Set the world up as the header says; 0 if no such relay can be.            */
static int
set_up (const uint8_t *header, zdev_settings *settings)
{
    static const int captures[8] = { -1, PUB, XPUB, PUSH, PAIR, DEALER, ROUTER,
                                     PUSH };
    static const int controls[16] = { -1, PAIR, REP, ROUTER, DEALER, PULL, SUB,
                                      XSUB, XPUB, -1, -1, -1, REP, -1, -1, -1 };
    static const int bursts[4] = { 1, 2, 3, 64 };
    static const int rooms[4] = { -1, 0, 1, 3 };
    static const int long_waits[4] = { 0, 60, 200, 1000 };
    static const size_t in_sizes[4] = { 0, 0, 1, 40 };
    static const size_t out_sizes[4] = { 0, 2, 1, 40 };
    static const char in_prefix[] = "A prefix that libzmq would have to allocate";
    static const char out_prefix[] = "B prefix that libzmq would have to allocate";
    int single = header[3] & 16;
    int in = header[0] % TYPES, out = header[1] % TYPES;
    int capture = captures[header[2] & 7], control = controls[header[3] & 15];
    if (!fit (in, out, single))
        return 0;

    world.socket[FRONTEND] = world_socket (FRONTEND, in);
    world.socket[BACKEND] = single ? world.socket[FRONTEND]
                                   : world_socket (BACKEND, out);
    if (capture >= 0)
        world.socket[CAPTURE] = world_socket (CAPTURE, capture);
    if (control >= 0)
        world.socket[CONTROL] = world_socket (CONTROL, control);
    for (int role = 0; role < ROLES; role++) {
        peer_socket *at = world.socket[role];
        if (!at)
            continue;
        at->room = rooms[(header[5] >> 2 * role) & 3];
        at->mandatory = at->type == STREAM || (header[6] >> role) & 1;
        at->knows_b = (header[6] >> (4 + role)) & 1;
    }
    world.swap = (header[3] & 32) != 0;
    world.way[THERE].drop = (header[3] & 64) != 0;
    world.way[BACK].drop = (header[3] & 128) != 0;
    world.capture_drop = (header[2] & 8) != 0;
    world.only_first = (header[7] & 32) != 0;
    world.long_wait = long_waits[header[8] & 3];
    world.real_poll = (header[2] & 0xf0) == 0xf0;
    world.burst = bursts[(header[4] >> 4) & 3];
    world.throttle = header[4] >> 6;

    int in_kind = header[4] & 3, out_kind = (header[4] >> 2) & 3;
    *settings = (zdev_settings) {
        .in_prefix = in_kind ? in_prefix : NULL,
        .in_prefix_size = in_sizes[in_kind],
        .out_prefix = out_kind ? out_prefix : NULL,
        .out_prefix_size = out_sizes[out_kind],
        .swap = world.swap,
        .in_drop = world.way[THERE].drop,
        .out_drop = world.way[BACK].drop,
        .capture_drop = world.capture_drop,
        .burst = world.burst,
        .wakeup_fd = WAKEUP_FD,
        .long_wait = world.long_wait,
    };
    zdev_end *const ends[ROLES] = { &settings->frontend, &settings->backend,
                                    &settings->capture, &settings->control };
    open_way (THERE, FRONTEND, BACKEND, settings->in_prefix,
              settings->in_prefix_size);
    if (!single)
        open_way (BACK, BACKEND, FRONTEND, settings->out_prefix,
                  settings->out_prefix_size);
    world.aside[CAPTURE] = world.socket[CAPTURE];
    world.aside[CONTROL] = world.socket[CONTROL];
    world.socket[CAPTURE] = world.socket[CONTROL] = NULL;
    if (!(header[7] & 64)) {        /*  else they may join, as things happen   */
        joined (CAPTURE);
        joined (CONTROL);
    }
    for (int role = 0; role < ROLES; role++) {
        peer_socket *at = world.socket[role];
        if (at)
            *ends[role] = (zdev_end) { at, at->type, at->fd };
    }
    return 1;
}

/*  poll(2) itself: on a pipe that is always readable, and on nothing else. And
    the system's clock, by which no wait will be long.                         */
static void
use_real_poll (zdev_settings *settings)
{
    static int readable[2];
    if (!readable[1] && (pipe (readable) || write (readable[1], "", 1) != 1))
        abort ();
    settings->wakeup_fd = readable[0];
    settings->frontend.fd = settings->backend.fd = -1;
    settings->capture.fd = settings->control.fd = -1;
    if (settings->long_wait)
        settings->long_wait = INT_MAX;
    world.long_wait = 0;
}

static void
check_counts (zdev_relay *relay)
{
    zdev_statistics now;
    zdev_relay_statistics (relay, &now);
    world_expect_counts (&now);
    int patience = zdev_relay_patience (relay);
    DEMAND (patience == -1
            || (!world.paused
                && (now.there.parked || now.back.parked || now.capture_parked)),
            "nothing is parked, yet it wants to be run in %d ms", patience);
    DEMAND (!zdev_relay_paused (relay) == !world.paused, "pause is mistaken");
    for (int role = 0; role < ROLES; role++) {
        const peer_socket *at = world.socket[role];
        uint64_t held = at ? zdev_relay_subscriptions (relay, at) : 0;
        DEMAND (!at || held == at->subscriptions,
                "socket %d: %ju subscriptions are held, not %ju", role,
                (uintmax_t) held, (uintmax_t) at->subscriptions);
    }
}

/*  Does a run that returned this tell of a wait that is long, or was?         */
static int
tells_of_waits (int code)
{
    int news = world.news;
    int alone = code == ZDEV_WOKEN && world.timeout < 0 && !world.woken
             && !world.interrupted && !world.overflowed && !world.paused
             && !news;
    for (int i = 0; i < ASIDE; i++) {
        ledger *way = &world.way[i];
        if (!world_waited_long (way) || (way->told == TOLD && !way->vague))
            continue;
        news = 1;
        way->told = alone && !way->vague ? TOLD : PERHAPS;
    }
    return news;
}

static void
check_code (int code)
{
    int news = tells_of_waits (code);
    if (world.fatal || world.wakeup_closed)
        DEMAND (code < 0 || world.wakeup_closed, "it goes on after error %d",
                world.fatal);
    else
    if (world.finished)
        DEMAND (code == ZDEV_FINISHED, "TERMINATE gives %d", code);
    else
    if (world.timeout == 0)
        DEMAND (code >= ZDEV_STEPPED
                || (world.interrupted && code == ZDEV_WOKEN),
                "a step gives %d", code);
    else
        DEMAND (code == ZDEV_WOKEN && (world.woken || world.timeout > 0
                                       || world.interrupted || world.overflowed
                                       || news),
                "a run gives %d", code);
    if (code < 0)
        DEMAND (-code == world.fatal || (world.wakeup_closed && code == -EBADF),
                "the error is %d, not %d", -code, world.fatal);
}

/*  Look whether something may move: 0 only where nothing can until a descriptor
    is readable, 1 only where something can or is parked, or where the capture
    was found to have failed. Returns 0 at an error
    that ends the relay.                                                       */
static int
look (zdev_relay *relay)
{
    int failed = zdev_relay_capture_failed (relay);
    world.looking = 1;
    int code = zdev_relay_look (relay);
    world.looking = 0;
    if (code < 0 || world.fatal) {
        DEMAND (-code == world.fatal, "a look gives %d", code);
        return 0;
    }
    int parked = 0;
    for (int i = 0; i < WAYS && !world.paused; i++)
        parked |= world.way[i].held || world.way[i].copy;
    const char *movable = world_movable (0);
    if (code)
        DEMAND (parked || movable || failed != zdev_relay_capture_failed (relay),
                "a look sees what is not there");
    else
    if (!world_signalled ())
        DEMAND (!parked && !movable, "a look does not see that %s",
                parked ? "a message is parked" : movable);
    check_counts (relay);
    return 1;
}

/*  Change what the owner may change between two runs.                         */
static void
change (zdev_relay *relay, int changes)
{
    int held = 0, parked = 0;
    for (int i = 0; i < ASIDE; i++) {
        held |= world.way[i].held != NULL;
        parked |= world.way[i].held || world.way[i].copy;
    }
    if (changes & 16) {
        zdev_end capture = joined (CAPTURE), control = joined (CONTROL);
        zdev_relay_join (relay, &capture, &control);
    }
    world.way[THERE].shut ^= changes & 1;
    world.way[BACK].shut ^= (changes >> 1) & 1;
    zdev_relay_shut (relay, world.way[THERE].shut, world.way[BACK].shut);
    if (changes & 4) {
        zdev_relay_copies (relay, !world.copies);
        if (!parked || !world.copies)   /*  else that changes nothing          */
            world.copies = !world.copies;
    }
    if (changes & 8 && !held)   /*  what is held was looked at already         */
        world.only_first = !world.only_first;
    zdev_relay_only_first (relay, world.only_first);
}

/*  What the owner does once it has been woken. Returns 0 when it has had
    enough.                                                                    */
static int
own (zdev_relay *relay)
{
    static const int timeouts[4] = { -1, 0, 5, 1000 };
    int wanted = world.wanted;
    world.woken = world.wanted = 0;
    change (relay, wanted >> 8);
    if (wanted & 1) {
        world_pause (!world.paused);
        zdev_relay_pause (relay, world.paused);
    }
    if (wanted & 2) {
        int code = zdev_relay_flush (relay);
        if (code < 0 || world.fatal) {
            DEMAND (-code == world.fatal, "a flush gives %d", code);
            return 0;
        }
        world_expect_quiet ();
        check_counts (relay);
        tells_of_waits (code);  /*  these counts may                           */
    }
    if (wanted & 128 && !look (relay))
        return 0;
    if (wanted & 4)
        world.timeout = timeouts[(wanted >> 3) & 3];
    if (wanted & 32)
        world.wakeup_closed = 1;
    return !(wanted & 64);
}

/*  Run until the relay ends, or nothing more happens; returns the last code.  */
static int
run (zdev_relay *relay)
{
    for (;;) {
        world.interrupted = world.overflowed = world.news = world.due = 0;
        world.woken |= world.real_poll;
        int code = zdev_relay_run (relay, world.timeout);
        world_expect_quiet ();
        check_counts (relay);
        check_code (code);
        world.finished = 0;
        if (code < 0 || world.over)
            return code;
        if (code == ZDEV_STEPPED) {
            while (!world_signalled ()) {
                const char *movable = world_movable (1);
                DEMAND (!movable, "no descriptor tells that %s", movable);
                if (!world_time_passes ())
                    return code;
            }
        }
        if (world.real_poll && !world_time_passes ())
            return code;
        if (!own (relay))
            return code;
    }
}

/*  A relay that was ended by an error ends again.                             */
static void
check_end (zdev_relay *relay)
{
    if (world.fatal != ENOMEM) {
        int code;
        world.timeout = 0;
        do {
            world.finished = 0;
            code = zdev_relay_run (relay, 0);
        } while (code > ZDEV_STEPPED || code == ZDEV_FINISHED);
        DEMAND (code < 0, "after an error, it goes on with %d", code);
    }
    check_counts (relay);
}

int
LLVMFuzzerInitialize (int *count, char ***arguments)
{
    (void) count, (void) arguments;
    world_trace = getenv ("TRACE") != NULL;
    return 0;
}

int
LLVMFuzzerTestOneInput (const uint8_t *data, size_t size)
{
    zdev_settings settings;
    if (size < HEADER)
        return -1;
    world_open ();
    if (!set_up (data, &settings)) {
        world_close ();
        return -1;
    }
    world.next = data + HEADER;
    world.end = data + size;
    world.countdown = data[7] & 31;
    world.timeout = data[7] & 0x80 ? 0 : -1;

    zdev_libzmq table = world_table;
    if (world.real_poll) {
        use_real_poll (&settings);
        table.poll = NULL;
        table.clock = NULL;
    }
    zdev_relay *relay = zdev_relay_new (&table, &settings);
    if (!relay)
        DEMAND (world.no_memory, "no relay, and memory is not short");
    else {
        change (relay, data[8] >> 2);
        int code = run (relay);
        if (code < 0 && world.fatal)
            check_end (relay);
    }
    zdev_relay_free (relay);
    world_close ();
    return 0;
}
