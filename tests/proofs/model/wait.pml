/*  wait.pml: how a relay waits, for Spin. `tests/proofs/model/check` runs it.

    What is modelled is csrc/loop.c with what it needs of the files below. Left out
    is what does not bear on waiting: what messages contain, errors, the turns of
    REQ and REP, capture_policy "drop", and bounded runs. Each inline is named like the C function it
    stands for. Peers, the user and the operator may act between any two calls
    of libzmq. (A call is one step: whatever they do within it, they could as
    well have done just before it or just after.) The sockets are libzmq's:

    - A peer never touches a socket. It writes into a pipe, or reads from one,
      and posts a command to the socket's mailbox; ZMQ_FD is readable while
      commands wait there.
    - A writer posts activate_read only if the reader has found the pipe empty
      (ypipe_t::flush), and the reader looks into it again only then.
    - A receive processes the commands when it finds nothing, and also every so
      often; a send does so or not, being throttled by time; a look at
      ZMQ_EVENTS always does.

    What must hold:
    - The loop never blocks in poll(2), without a time-out, while something
      could move: the assertions behind `wait`. They look at the moment itself,
      so that nothing later can make up for a wake-up that was lost.
    - Nothing spins: there is no cycle, but for that of a bounded wait during
      which nothing could move (non-progress cycles). Peers send only so many
      messages, so any other cycle is the loop's own.
    - With ENDLESS, peers never stop, and the formulas say that stop() is
      honoured and that a parked message is delivered all the same.

    Macros that choose what is modelled:
      MESSAGES=n      how many messages come from each side
      XPUB, ROUTER    the type of the backend, which is a DEALER otherwise; XPUB
                      with XPUB_NODROP, ROUTER with ROUTER_MANDATORY
      CAPTURE         a PUSH gets copies, capture_policy "block"
      USER            pause(), resume(), stop()
      CONTROL         a socket says PAUSE, RESUME, TERMINATE
      STEPS           relay.step() in an event loop of somebody else's
      ENDLESS         see above
    Those that begin with BAD_ put a mistake in; `check` says what each is.     */

#ifndef MESSAGES
#define MESSAGES 2
#endif
#define BURST 2
#define MAX_COMMANDS 2

#define FRONT 0
#define BACK 1
#define THIRD 2                 /*  capture or control                         */
#if defined(CAPTURE) || defined(CONTROL)
#define SOCKETS 3
#else
#define SOCKETS 2
#endif

#define TAKING 0
#define HELD 1
#define COPY 2

/*  A direction has the number of its source.                                  */
#define THERE FRONT
#define SOURCE(d) (d)
#define DESTINATION(d) (1 - (d))
#define AWAITS(d) (stage[d] == COPY -> THIRD : DESTINATION(d))

/*  ======================================================================
    What others touch                                                          */

/*  A pipe into the device, and the mailbox of its socket.                     */
byte inbox[SOCKETS];            /*  messages                                   */
bool asleep[SOCKETS];           /*  the reader found it empty                  */
bool activate_read[SOCKETS];    /*  a command                                  */
byte activate_write[SOCKETS];   /*  commands: room for so many messages more   */
byte outbox[SOCKETS];           /*  messages sent, which the peer has not taken*/

/*  What the user asked for, and the wake-up descriptor. Who has asked and not
    made that readable yet is `waking`.                                        */
mtype = { PAUSE, RESUME, STOP };
chan asked = [2] of { mtype };
bool woken, waking;
bool stop_asked, finished, parked;      /*  for the formulas                   */

/*  The ROUTER's messages all go to one peer, which may leave; there is another
    one, which has room or not.                                                */
bool leaves, another_activates;
#ifdef ROUTER
#define ROUTER_COMMANDS(s) ((s) == BACK && (leaves || another_activates))
#define IS_ROUTER(s) ((s) == BACK)
#else
#define ROUTER_COMMANDS(s) false
#define IS_ROUTER(s) false
#endif

/*  Is ZMQ_FD readable?                                                        */
#define FD(s) (activate_read[s] || activate_write[s] > 0 || ROUTER_COMMANDS(s))
#define ANY_FD (FD(0) || FD(1) || FD(SOCKETS - 1))

/*  ======================================================================
    libzmq's side of a socket                                                  */

inline process_commands (s)
{
    in_active[s] = in_active[s] || activate_read[s];
    activate_read[s] = false;
    room[s] = room[s] + activate_write[s];
    activate_write[s] = 0;
    if
    :: IS_ROUTER(s) ->
        gone = gone || leaves;
        another = another || another_activates;
        leaves = false;
        another_activates = false
    :: else
    fi
}

/*  Is there a message? The reader sleeps if not.                              */
inline check_read (s)
{
    got = in_active[s] && inbox[s] > 0;
    asleep[s] = asleep[s] || (in_active[s] && !got);
    in_active[s] = got
}

/*  zmq_msg_recv with DONTWAIT; got is false for EAGAIN                        */
inline msg_recv (s)
{
    atomic {
        if
        :: FD(s) -> early = true            /*  every hundredth call or so     */
        :: early = false
        fi;
        d_step {
            if
            :: early -> process_commands (s)
            :: else
            fi;
            check_read (s);
            if
            :: !got -> process_commands (s); check_read (s)
            :: else
            fi;
            inbox[s] = inbox[s] - got;
            early = false
        }
    }
}

/*  zmq_msg_send with DONTWAIT; sent is false for EAGAIN                       */
inline msg_send (s)
{
    atomic {
        if
        :: FD(s) -> early = true
        :: early = false                    /*  throttled                      */
        fi;
        d_step {
            if
            :: early -> process_commands (s)
            :: else
            fi;
            if
            :: IS_ROUTER(s) && gone -> sent = true  /*  EHOSTUNREACH: counted  */
            :: !(IS_ROUTER(s) && gone) && room[s] > 0 ->
                sent = true;
                room[s]--;
                outbox[s]++
            :: else -> sent = false
            fi;
            early = false
        }
    }
}

/*  What ZMQ_EVENTS says of a send                                             */
#if defined(ROUTER)
#define POLLOUT(s) ((s) == BACK -> another || (!gone && room[s] > 0) : room[s] > 0)
#elif defined(XPUB)
#define POLLOUT(s) ((s) == BACK || room[s] > 0)
#else
#define POLLOUT(s) (room[s] > 0)
#endif

/*  ======================================================================
    frames.c, direction.c, turn.c                                              */

/*  zdev_socket_events                                                         */
inline socket_events (s)
{
    d_step {
        process_commands (s);
        check_read (s);
        shown = POLLOUT(s);
#ifdef BAD_READABLE_IS_SETTLED
        settled[s] = true;
#else
        settled[s] = !got;
#endif
        got = false
    }
}

/*  zdev_frames_send                                                           */
inline frames_send (s)
{
#ifndef BAD_SEND_KEEPS_SETTLED
    settled[s] = false;
#endif
    msg_send (s)
}

/*  deliver, conclude and copy_send: send what was just taken, or is parked    */
inline deliver (d)
{
    if
    :: stage[d] == HELD ->
        frames_send (DESTINATION(d));
        if
#ifdef CAPTURE
        :: sent -> stage[d] = COPY
#else
        :: sent -> stage[d] = TAKING
#endif
        :: else
        fi
    :: else
    fi;
    if
    :: stage[d] == COPY ->
        frames_send (THIRD);
        if
        :: sent -> stage[d] = TAKING
        :: else
        fi
    :: else
    fi;
#ifdef ENDLESS
    parked = stage[THERE] != TAKING;
#endif
    sent = false
}

#ifdef BAD_ROUTER_WAITS_FOR_POLLOUT
#define ONLY_A_SEND_TELLS(s) false
#else
#define ONLY_A_SEND_TELLS(s) IS_ROUTER(s)
#endif

/*  zdev_direction_retry                                                       */
inline retry (d)
{
    was = stage[d];
#ifdef BAD_EVENTS_NOT_READ
    shown = true;
#else
    socket_events (AWAITS(d));
#endif
    if
    :: shown || ONLY_A_SEND_TELLS(AWAITS(d)) ->
        deliver (d);
#ifndef BAD_EVENTS_NOT_READ
        doubtful[d] = shown && stage[d] == was;
#endif
#ifndef BAD_RETRY_KEEPS_SETTLED
        if
        :: stage[d] == TAKING -> settled[SOURCE(d)] = false
        :: else
        fi;
#endif
    :: else
    fi;
    shown = false
}

/*  zdev_direction_turn                                                        */
inline turn (d)
{
    if
    :: stage[d] != TAKING ->
        retry (d);
        burst = (stage[d] != was -> 1 : 0);
        was = 0
    :: else
    fi;
    do
    :: stage[d] == TAKING && !settled[SOURCE(d)] && burst < BURST ->
        msg_recv (SOURCE(d));
        if
        :: got ->
            got = false;
            burst++;
            stage[d] = HELD;
            deliver (d)
        :: else -> settled[SOURCE(d)] = true
        fi
    :: else -> break
    od;
    moved = moved + burst;
    burst = 0
}

/*  ======================================================================
    loop.c                                                                     */

inline unsettle ()
{
    settled[0] = false;
    settled[1] = false;
    settled[SOCKETS - 1] = false
}

#ifdef BAD_PAUSE_FORGOTTEN
#define MOVES true
#else
#define MOVES (!paused)
#endif
#if defined(CONTROL)
#define IS_CONTROL(s) ((s) == THIRD)
#define IS_READ(s) (IS_CONTROL(s) || (MOVES && stage[s] == TAKING))
#elif defined(CAPTURE)
#define IS_CONTROL(s) false
#define IS_READ(s) ((s) != THIRD && MOVES && stage[s] == TAKING)
#else
#define IS_CONTROL(s) false
#define IS_READ(s) (MOVES && stage[s] == TAKING)
#endif

/*  serve_control. The operator says PAUSE, RESUME and TERMINATE, in this order,
    and is answered.                                                           */
inline serve_control ()
{
    do
    :: !settled[THIRD] && burst < MAX_COMMANDS && !terminated ->
        msg_recv (THIRD);
        if
        :: got ->
            got = false;
            burst++;
            heard++;
            if
            :: heard == 1 -> paused = true
            :: heard == 2 ->
                paused = false;
#ifndef BAD_RESUME_KEEPS_SETTLED
                unsettle ()
#endif
            :: heard == 3 -> terminated = true
            fi;
            frames_send (THIRD);
            sent = false
        :: else -> settled[THIRD] = true
        fi
    :: else -> break
    od;
    moved = moved + burst;
    burst = 0
}

/*  settle: first who is awaited, then each socket. It may block if nothing is
    movable then, for a time if that is `bounded`.                             */
inline settle_awaited (d)
{
    if
    :: !paused && stage[d] != TAKING ->
        settled[AWAITS(d)] = false;
#if !defined(BAD_NO_TIMEOUT) && !defined(STEPS)
        bounded = bounded || doubtful[d] || IS_ROUTER(AWAITS(d))
#endif
    :: else
    fi
}

#ifdef BAD_DOUBT_FORGOTTEN
#define DOUBTFUL(d) false
#else
#define DOUBTFUL(d) doubtful[d]
#endif
#define HAS_ROOM(d, s) (!paused && stage[d] != TAKING && AWAITS(d) == (s) && !DOUBTFUL(d))

inline settle_socket (s)
{
    if
    :: !settled[s] ->
        socket_events (s);
        if
        :: (!settled[s] && IS_READ(s)) || (shown && (HAS_ROOM(0, s) || HAS_ROOM(1, s))) ->
            movable = true
        :: else
        fi;
        settled[s] = settled[s] || !IS_READ(s);
        shown = false
    :: else
    fi
}

inline settle ()
{
    settle_awaited (0);
    settle_awaited (1);
#if !defined(BAD_NO_SETTLE) && !defined(BAD_EVENTS_NOT_READ)
    settle_socket (0);
    settle_socket (1);
#if SOCKETS > 2
    settle_socket (2);
#endif
#endif
}

/*  await, once poll(2) has returned                                           */
inline polled ()
{
    d_step {
        since_look = 0;
        settled[0] = settled[0] && !FD(0);
        settled[1] = settled[1] && !FD(1);
        settled[SOCKETS - 1] = settled[SOCKETS - 1] && !FD(SOCKETS - 1)
    }
}

/*  Could something move, by what the sockets have been told? Asked when no
    descriptor is readable, so there is nothing more that they could be told.  */
#define READABLE(s) (in_active[s] && inbox[s] > 0)
#define TAKEN(s) (room[s] > 0 || (IS_ROUTER(s) && gone))
#define CAN_MOVE(d) (!paused && (stage[d] == TAKING -> READABLE(SOURCE(d)) : TAKEN(AWAITS(d))))
#define SOMETHING_CAN_MOVE (CAN_MOVE(0) || CAN_MOVE(1) \
                            || (IS_CONTROL(SOCKETS - 1) && READABLE(SOCKETS - 1)))

active proctype Relay ()
{
    /*  libzmq's, of each socket                                               */
    bool in_active[SOCKETS] = true;         /*  the pipe is worth a look       */
    byte room[SOCKETS] = 1;                 /*  HWM 1                          */
    bool gone, another;                     /*  the ROUTER's peers             */
    /*  the loop's                                                             */
    bool settled[SOCKETS];
    byte stage[2];
    bool doubtful[2];
    bool paused, terminated;
    byte heard, since_look;
    /*  for a while                                                            */
    bool early, got, sent, shown, movable, bounded;
    byte was, burst, moved;
    mtype command;

#ifdef ROUTER
    if
    :: another = true
    :: another = false
    fi;
#endif

enter:                                      /*  zdev_relay_run                 */
    unsettle ();
round:                                      /*  round_of_turns                 */
    moved = 0;
    if
    :: !paused -> turn (0); turn (1)
    :: else
    fi;
#ifdef CONTROL
    serve_control ();
    if
    :: terminated -> goto finish
    :: else
    fi;
#endif
    since_look = since_look + moved;
    if
#ifdef STEPS
    :: moved > 0 -> goto look               /*  returns, and is called again   */
#else
    :: moved > 0 && since_look >= BURST -> goto look
    :: moved > 0 && since_look < BURST -> goto round
#endif
    :: else
    fi;
    settle ();
    if
    :: movable -> movable = false; bounded = false; goto round
    :: else
    fi;

    /*  wait: await, until a descriptor is readable                            */
    atomic {
        if
        :: woken || ANY_FD -> goto waited
        :: else
        fi;
#if !defined(XPUB) && !defined(ROUTER)
        assert (!bounded);                  /*  POLLOUT has been true          */
#endif
        assert (bounded || !SOMETHING_CAN_MOVE);
        assert (waking || empty (asked));
        if
        :: bounded && SOMETHING_CAN_MOVE -> goto waited
        :: bounded && !SOMETHING_CAN_MOVE -> goto progress_idle
        :: goto end_blocked
        fi
    };
end_blocked:
    woken || ANY_FD;
    goto waited;
progress_idle:                              /*  DOUBT_TIMEOUT has gone by      */
    skip;
waited:
    bounded = false;
    polled ();
    if
    :: woken -> goto obey
    :: else
    fi;
#ifdef STEPS
    goto enter;
#else
    goto round;
#endif

look:                                       /*  await, with time-out 0         */
#ifdef BAD_BUSY_IS_DEAF
    since_look = 0;
#else
    skip;
    polled ();
    if
    :: woken -> goto obey
    :: else
    fi;
#endif
#ifdef STEPS
    goto enter;
#else
    goto round;
#endif

obey:                                       /*  Relay._attend, in Python       */
#ifndef BAD_OBEYS_BEFORE_IT_DRAINS
    woken = false;
#endif
    do
    :: atomic { asked?command ->
        if
        :: command == PAUSE -> paused = true
        :: command == RESUME -> paused = false
        :: command == STOP -> goto finish
        fi;
        command = 0 }
    :: empty (asked) -> break
    od;
#ifdef BAD_OBEYS_BEFORE_IT_DRAINS
    woken = false;
#endif
    goto enter;

finish:
    finished = true
}

/*  ======================================================================
    The others                                                                 */

/*  A peer writes a message, then posts a command if it must.                  */
proctype Sender (byte s; byte left)
{
    bool wake;
end:
    do
    :: d_step {
        left > 0 && inbox[s] < MESSAGES ->
#ifndef ENDLESS
        left--;
#endif
        inbox[s]++;
        wake = asleep[s];
        asleep[s] = false };
       if
       :: wake -> d_step { activate_read[s] = true; wake = false }
       :: else
       fi
    od
}

/*  A peer takes a message.                                                    */
proctype Taker (byte s)
{
end:
    do
    :: d_step { outbox[s] > 0 -> outbox[s]--; activate_write[s]++ }
    od
}

/*  The ROUTER's peers: the addressed one leaves, the other one gets room, or
    not.                                                                       */
proctype Neighbours ()
{
    if
    :: leaves = true
    :: true
    fi;
    another_activates = true
}

#define ASK(what) atomic { asked!what; waking = true }; d_step { woken = true; waking = false }

proctype User ()
{
#ifndef ENDLESS
    if
    :: ASK(PAUSE); ASK(RESUME)
    :: true
    fi;
#endif
    d_step { stop_asked = true };
    ASK(STOP)
}

init {
    atomic {
        run Sender (FRONT, MESSAGES);
        run Sender (BACK, MESSAGES);
        run Taker (FRONT);
        run Taker (BACK);
#ifdef CAPTURE
        run Taker (THIRD);
#endif
#ifdef CONTROL
        run Sender (THIRD, 3);
        run Taker (THIRD);
#endif
#ifdef USER
        run User ();
#endif
#ifdef ROUTER
        run Neighbours ()
#endif
    }
}

#ifdef ENDLESS
ltl stop_is_honoured { [] (stop_asked -> <> finished) }
ltl parked_is_delivered { [] (parked -> <> !parked) }
#endif
