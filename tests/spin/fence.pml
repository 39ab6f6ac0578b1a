/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * fence - a model of holds, watches, merges and the reuse of blocks, for spin
 *
 * Two logical blocks A and B, three physical blocks, three clients. Each client is one request:
 * read, in-place or copy-on-write write, discard (of one block or of both at once), same (with its
 * compare outside of the fence) or clone; which ones is chosen first, in every combination, and so
 * is the mapping they start from. Spin then runs every interleaving. Nothing is sampled.
 *
 * How the steps map to core/
 *   take, drop, BLOCKED   fence_take(), fence_drop(), blocked() and conflicts() in fence.c: a hold
 *                         waits for what is held and for what waited before it. Who holds one range
 *                         and takes a second passes those that only wait. A write that took its
 *                         range shared and finds that it needs it exclusive keeps its ticket
 *   give                  give() in fence.c: a hold that may change content touches the watches
 *   watch                 fence_watch() and fence_unwatch()
 *   enter, leave, PASSED  worker_enter() and worker_leave() in worker.c; reads and the compare
 *                         outside of the fence enter, all others are protected by their holds
 *   busy_lsn, SETTLED     pending_add() and pending_settle() in pending.c: a block that lost a
 *                         reference is busy until the record is durable and all that may have read
 *                         the old mapping left
 *   ALLOCATABLE           alloc_get() in alloc.c; any free block may come
 *   IN_PLACE              is_private() in op_write.c (I4): maybe_shared is off, or the count is 1
 *                         and the block is not busy (then the flag is cleared: map_clear_shared())
 *   write                 op_write.c: admit(), make_targets(), data, publish()
 *   discard               op_unmap.c: looks first, and is done when nothing is mapped; else
 *                         fenced()
 *   same, clone           op_same.c: watch(), compare(), take_fences(), publish()
 *   read                  op_read.c
 *   edit                  edit_publish() in edit.c: map, counts, flags and journal_append() in one
 *                         step, which the stripe's lock and the metadata lock make of it
 *   committer             freeze() and flushed() of journal.c: a commit in flight is uncommitted
 *
 * A data write takes effect at one step between its submission and its completion; other clients
 * run before and after it. A write that finds no free block waits for a commit or an epoch with its
 * fence held, as nothing that it waits for needs it.
 *
 * What is checked
 *   - Every change of content happens once, within its request: truth[] is what each block must
 *     read as, it changes when a write lands in place or is published, a discard or a clone is
 *     published, and check() compares it with the mapping and the blocks after each such step. So
 *     an acknowledged write is never lost, and a merge changes nothing (I9).
 *   - A read returns a value that the block had at some time while the read ran.
 *   - Counts equal a recount; a block with two owners has both flags set (I6).
 *   - Data lands only in a block that no recoverable mapping reads it from, but for its own (I3,
 *     I4): reach[] is the set of blocks that a logical block maps to in any state between the
 *     durable one and this one.
 *   - A publish finds the entry that was looked up (I7).
 *   - A write is refused for want of space only when no block is allocatable and none will be.
 *   - No deadlock: spin reports a state where somebody waits and nobody can move.
 *
 * Bugs are put in with -D; each has to be found (see docs/models.md):
 *   NO_DRAIN            an exclusive hold is given while shared ones are held
 *   EARLY_LOOKUP        a write reads the mapping before it is admitted
 *   SAME_EARLY_LOOKUP   a merge remaps to the mapping that its compare outside of the fence saw
 *   NO_FENCE            a merge publishes after its compare without a fence
 *   IGNORE_WATCH        a merge does not look whether its watch was touched
 *   DISCARD_NO_TOUCH    a discard does not touch watches
 *   DISCARD_NO_DRAIN    a discard does not wait for the write in flight
 *   SOURCE_SHARED       the source of a merge or clone is held shared
 *   SOURCE_FLAG         a merge or clone does not set the source's maybe_shared flag
 *   FENCE_ORDER         source first, then destination, instead of by number
 *   NO_PASS             a merge's second hold queues behind those that wait for its first
 *   REUSE_BEFORE_EPOCH  a freed block is allocatable while an old request may still read it
 *   REUSE_BEFORE_COMMIT a freed block is allocatable before the record that freed it is durable
 *   LATE_ENTER          a read looks the mapping up before it enters
 *   UNSHARE_UNCOMMITTED an overwrite goes in place after an uncommitted decrement
 *   FALSE_ENOSPC        whether anything is pending is asked later than whether anything is free
 */

#ifndef CLIENTS
#define CLIENTS 3 /* or 4, for a long run */
#endif
#define BLOCKS  3 /* physical: 1 to BLOCKS; 0 is a hole and reads as 0 */
#define A       0
#define B       1

#define OP_READ_A    0
#define OP_READ_B    1
#define OP_WRITE_A   2
#define OP_WRITE_B   3
#define OP_DISCARD_A 4
#define OP_DISCARD_B 5
#define OP_SAME_AB   6
#define OP_SAME_BA   7
#define OP_CLONE_AB  8
#define OP_CLONE_BA  9
#define OP_DISCARD_AB 10
#define OP_LAST      10

/* --- the volume --- */

byte map[2];               /* logical -> physical */
bit flag[2];               /* maybe_shared */
byte content[BLOCKS + 1];
byte refs[BLOCKS + 1];
bit reserved[BLOCKS + 1];  /* handed out for a write under way */
byte busy_lsn[BLOCKS + 1]; /* the last edit that took a reference away */
byte next_lsn = 1;
byte frozen_lsn;
byte durable_lsn;
byte epoch[CLIENTS];       /* 0: not entered */

/* --- what is known without looking at the volume --- */

byte truth[2];
byte reach[2];     /* blocks it maps to in a state from the durable one on; bit per block */
byte reach_new[2]; /* the same from the frozen one on */
bit reading[2];
byte seen[2];      /* values while a read of it runs; bit per value */

/* --- the fence: one hold for each client and logical block --- */

#define FREE    0
#define WAITING 1
#define HELD    2
#define SHARED    0
#define EXCLUSIVE 1

byte state[CLIENTS * 2];
bit mode[CLIENTS * 2];
bit changes[CLIENTS * 2];
byte ticket[CLIENTS * 2];
bit watching[CLIENTS];
bit touched[CLIENTS];
byte watched[CLIENTS]; /* bit per logical block */

#define H(c, l) ((c) * 2 + (l))
#define CONFLICT(c, d, l) (mode[H(c, l)] == EXCLUSIVE || mode[H(d, l)] == EXCLUSIVE)
#ifdef NO_DRAIN
#define HELD_IN_WAY(c, d, l) (state[H(d, l)] == HELD && mode[H(d, l)] == EXCLUSIVE)
#else
#define HELD_IN_WAY(c, d, l) (state[H(d, l)] == HELD && CONFLICT(c, d, l))
#endif
#ifdef NO_PASS
#define PASSES(c, l) false
#else
#define PASSES(c, l) (state[H(c, 1 - (l))] == HELD)
#endif
#define WAITS_IN_WAY(c, d, l) (state[H(d, l)] == WAITING && ticket[H(d, l)] < ticket[H(c, l)] && \
			       !PASSES(c, l) && CONFLICT(c, d, l))
#define IN_WAY(c, d, l) ((c) != (d) && (HELD_IN_WAY(c, d, l) || WAITS_IN_WAY(c, d, l)))
#define BLOCKED3(c, l) (IN_WAY(c, 0, l) || IN_WAY(c, 1, l) || IN_WAY(c, 2, l))
#if CLIENTS == 4
#define BLOCKED(c, l) (BLOCKED3(c, l) || IN_WAY(c, 3, l))
#else
#define BLOCKED(c, l) BLOCKED3(c, l)
#endif

#define PASSED(c, lsn) (epoch[c] == 0 || epoch[c] > (lsn))
#ifdef REUSE_BEFORE_EPOCH
#define ALL_PASSED(lsn) true
#elif CLIENTS == 4
#define ALL_PASSED(lsn) (PASSED(0, lsn) && PASSED(1, lsn) && PASSED(2, lsn) && PASSED(3, lsn))
#else
#define ALL_PASSED(lsn) (PASSED(0, lsn) && PASSED(1, lsn) && PASSED(2, lsn))
#endif
#ifdef REUSE_BEFORE_COMMIT
#define SETTLED(p) (busy_lsn[p] == 0 || ALL_PASSED(busy_lsn[p]))
#else
#define SETTLED(p) (busy_lsn[p] == 0 || (busy_lsn[p] <= durable_lsn && ALL_PASSED(busy_lsn[p])))
#endif
#define ALLOCATABLE(p) (refs[p] == 0 && !reserved[p] && SETTLED(p))
#define UNSETTLED(p)   (refs[p] == 0 && !reserved[p] && !SETTLED(p))
#define ANY_ALLOCATABLE (ALLOCATABLE(1) || ALLOCATABLE(2) || ALLOCATABLE(3))
#define ANY_UNSETTLED   (UNSETTLED(1) || UNSETTLED(2) || UNSETTLED(3))

#ifdef UNSHARE_UNCOMMITTED
#define IN_PLACE(l, p) (p != 0 && (!flag[l] || refs[p] == 1))
#else
#define IN_PLACE(l, p) (p != 0 && (!flag[l] || (refs[p] == 1 && SETTLED(p))))
#endif

/* A ticket behind those that are there now: only the order matters. */
inline draw(l)
{
	ticket[H(c, l)] = 1;
	i = 0;
	do
	:: i < CLIENTS ->
		if
		:: i != c && state[H(i, l)] != FREE && ticket[H(i, l)] >= ticket[H(c, l)] ->
			ticket[H(c, l)] = ticket[H(i, l)] + 1
		:: else
		fi;
		i++
	:: else -> break
	od;
	i = 0
}

inline touch(l)
{
	i = 0;
	do
	:: i < CLIENTS ->
		if
		:: watching[i] && (watched[i] & (1 << (l))) != 0 -> touched[i] = 1
		:: else
		fi;
		i++
	:: else -> break
	od;
	i = 0
}

inline give(l)
{
	state[H(c, l)] = HELD;
	if
	:: changes[H(c, l)] -> touch(l)
	:: else
	fi
}

/* Within an atomic: who is blocked stops here, and goes on in one step with what follows. */
inline take(l, how, changing)
{
	draw(l);
	mode[H(c, l)] = how;
	changes[H(c, l)] = changing;
	state[H(c, l)] = WAITING;
	!BLOCKED(c, l);
	give(l)
}

/* One hold on both blocks. */
inline take_wide(changing)
{
	draw(A);
	draw(B);
	mode[H(c, A)] = EXCLUSIVE;
	mode[H(c, B)] = EXCLUSIVE;
	changes[H(c, A)] = changing;
	changes[H(c, B)] = changing;
	state[H(c, A)] = WAITING;
	state[H(c, B)] = WAITING;
	!BLOCKED(c, A) && !BLOCKED(c, B);
	give(A);
	give(B)
}

inline drop(l)
{
	state[H(c, l)] = FREE;
	mode[H(c, l)] = SHARED;
	changes[H(c, l)] = 0;
	ticket[H(c, l)] = 0
}

#define CHANGER(c, l) (state[H(c, l)] == HELD && changes[H(c, l)])
#define CHANGERS3(l) (CHANGER(0, l) || CHANGER(1, l) || CHANGER(2, l))
#if CLIENTS == 4
#define CHANGERS(l) (CHANGERS3(l) || CHANGER(3, l))
#else
#define CHANGERS(l) CHANGERS3(l)
#endif

inline watch()
{
	watching[c] = 1;
	watched[c] = 3;
	touched[c] = (CHANGERS(A) || CHANGERS(B))
}

inline unwatch()
{
	watching[c] = 0;
	watched[c] = 0;
	touched[c] = 0
}

inline enter() { epoch[c] = next_lsn }
inline leave() { epoch[c] = 0 }

/* --- what must hold --- */

#define OWNERS(p) ((map[A] == (p) -> 1 : 0) + (map[B] == (p) -> 1 : 0))

inline check()
{
	assert(content[map[A]] == truth[A] && content[map[B]] == truth[B]);
	assert(refs[1] == OWNERS(1) && refs[2] == OWNERS(2) && refs[3] == OWNERS(3));
	assert(map[A] == 0 || map[A] != map[B] || (flag[A] && flag[B]))
}

inline set_truth(l, value)
{
	truth[l] = value;
	if
	:: reading[l] -> seen[l] = seen[l] | (1 << truth[l])
	:: else
	fi
}

/* The entry of l becomes `to`, in one edit. */
inline edit(l, to, shared)
{
	if
	:: to != 0 -> refs[to]++
	:: else
	fi;
	if
	:: map[l] != 0 ->
		assert(refs[map[l]] > 0);
		refs[map[l]]--;
		busy_lsn[map[l]] = next_lsn
	:: else
	fi;
	map[l] = to;
	flag[l] = shared;
	reach[l] = reach[l] | (1 << to);
	reach_new[l] = reach_new[l] | (1 << to);
	next_lsn++
}

/* --- the requests --- */

inline read(l)
{
#ifdef LATE_ENTER
	d_step { reading[l] = 1; seen[l] = 1 << truth[l]; p = map[l] };
	d_step { enter() };
#else
	d_step { reading[l] = 1; seen[l] = 1 << truth[l]; enter(); p = map[l] };
#endif
	d_step {
		assert((seen[l] & (1 << content[p])) != 0);
		reading[l] = 0;
		seen[l] = 0;
		p = 0;
		leave()
	}
}

#define NO_ROOM   255 /* in p */
#define EXCLUDES  254 /* in p: the range is needed alone */

/* Under the fence: in place, or into `fresh`. */
inline find_target(l)
{
	fresh = 0;
#ifndef EARLY_LOOKUP
	p = map[l];
#endif
	if
	:: IN_PLACE(l, p) -> flag[l] = 0
	:: !IN_PLACE(l, p) && mode[H(c, l)] == EXCLUSIVE ->
		if
		:: ALLOCATABLE(1) -> fresh = 1
		:: ALLOCATABLE(2) -> fresh = 2
		:: ALLOCATABLE(3) -> fresh = 3
		:: !ANY_ALLOCATABLE -> p = NO_ROOM
		fi;
		reserved[fresh] = (fresh != 0)
	:: else ->
		/* It was private when it queued, and is not any more. It keeps its ticket. */
		mode[H(c, l)] = EXCLUSIVE;
		state[H(c, l)] = WAITING;
		p = EXCLUDES
	fi
}

inline admit_write(l)
{
#ifdef EARLY_LOOKUP
	p = map[l];
#endif
	atomic { take(l, (IN_PLACE(l, map[l]) -> SHARED : EXCLUSIVE), 1); find_target(l) };
	if
	:: p == EXCLUDES ->
#ifdef EARLY_LOOKUP
		p = map[l];
#endif
		atomic { !BLOCKED(c, l) -> give(l); find_target(l) }
	:: else
	fi
}

inline land_fresh(l, value)
{
	d_step {
		assert(((reach[A] | reach[B]) & (1 << fresh)) == 0);
		content[fresh] = value
	};
	d_step {
		assert(map[l] == p);
		reserved[fresh] = 0;
		edit(l, fresh, 0);
		set_truth(l, value);
		check()
	}
}

inline land_in_place(l, value)
{
	d_step {
		assert((reach[1 - l] & (1 << p)) == 0);
		content[p] = value;
		set_truth(l, value);
		check()
	}
}

inline write(l, value)
{
	admit_write(l);
	do
	:: p == NO_ROOM ->
#ifdef FALSE_ENOSPC
		if
		:: atomic { !ANY_UNSETTLED -> assert(!ANY_ALLOCATABLE); break }
		:: atomic { ANY_UNSETTLED; ANY_ALLOCATABLE || !ANY_UNSETTLED; find_target(l) }
		fi
#else
		if
		:: atomic { !ANY_ALLOCATABLE && !ANY_UNSETTLED -> break } /* ENOSPC */
		:: atomic { ANY_ALLOCATABLE; find_target(l) }
		fi
#endif
	:: p != NO_ROOM && fresh != 0 -> land_fresh(l, value); break
	:: p != NO_ROOM && fresh == 0 -> land_in_place(l, value); break
	od;
	atomic { drop(l); p = 0; fresh = 0 }
}

inline publish_discard(l)
{
	if
	:: map[l] != 0 -> edit(l, 0, 0)
	:: else
	fi;
	set_truth(l, 0);
	check()
}

#ifdef DISCARD_NO_TOUCH
#define DISCARD_TOUCHES 0
#else
#define DISCARD_TOUCHES 1
#endif

inline discard(l)
{
	if
	:: d_step { map[l] == 0 -> set_truth(l, 0) }
#ifdef DISCARD_NO_DRAIN
	:: atomic { map[l] != 0 -> touch(l); publish_discard(l) }
#else
	:: atomic { map[l] != 0 -> take(l, EXCLUSIVE, DISCARD_TOUCHES) };
	   d_step { publish_discard(l) };
	   d_step { drop(l) }
#endif
	fi
}

inline discard_both()
{
	atomic { take_wide(DISCARD_TOUCHES) };
	d_step { publish_discard(A); publish_discard(B) };
	d_step { drop(A); drop(B) }
}

#ifdef SOURCE_SHARED
#define SOURCE_MODE SHARED
#else
#define SOURCE_MODE EXCLUSIVE
#endif

inline take_one(l, src, dst_changes)
{
	atomic {
		take(l, (src == l -> SOURCE_MODE : EXCLUSIVE), (src == l -> 0 : dst_changes))
	}
}

/* Both ranges, each closed and drained before the next. */
inline take_both(src, dst_changes)
{
#ifdef FENCE_ORDER
	if
	:: src == A -> take_one(A, src, dst_changes); take_one(B, src, dst_changes)
	:: else -> take_one(B, src, dst_changes); take_one(A, src, dst_changes)
	fi
#else
	take_one(A, src, dst_changes);
	take_one(B, src, dst_changes)
#endif
}

/* The destination reads from p, as the source does. */
inline share(src)
{
	edit(1 - src, p, (p != 0));
#ifndef SOURCE_FLAG
	if
	:: p != 0 -> flag[src] = 1
	:: else
	fi
#endif
}

inline same(src)
{
	/* Compare outside of the fence. */
	d_step { watch(); enter(); p = map[src]; q = map[1 - src] };
	v = content[p];
	d_step { equal = (v == content[q]); v = 0; leave() };
#ifndef SAME_EARLY_LOOKUP
	d_step { p = 0; q = 0 };
#endif
	if
	:: !equal -> d_step { unwatch() }
	:: else ->
#ifndef NO_FENCE
		take_both(src, 0);
#endif
		d_step {
#ifndef SAME_EARLY_LOOKUP
			p = map[src];
			q = map[1 - src];
#endif
#ifndef IGNORE_WATCH
			if
			:: touched[c] -> equal = (content[map[src]] == content[map[1 - src]])
			:: else
			fi;
#endif
			unwatch()
		};
		d_step {
			if
			/* A destination that is a hole stays one; q == p is shared already. */
			:: equal && q != p && q != 0 -> share(src); check()
			:: else
			fi;
			p = 0;
			q = 0
		};
		d_step { drop(A); drop(B) }
	fi;
	d_step { equal = 0; p = 0; q = 0 }
}

inline clone(src)
{
	take_both(src, 1);
	d_step { p = map[src]; q = map[1 - src] };
	d_step {
		if
		:: q != p -> share(src)
		:: else
		fi;
		set_truth(1 - src, truth[src]);
		check();
		p = 0;
		q = 0
	};
	d_step { drop(A); drop(B) }
}

proctype client(byte c; byte op)
{
	byte p, q, v, fresh, i;
	bit equal;

	if
	:: op == OP_READ_A -> read(A)
	:: op == OP_READ_B -> read(B)
	:: op == OP_WRITE_A -> write(A, 2)
	:: op == OP_WRITE_B -> write(B, 2)
	:: op == OP_DISCARD_A -> discard(A)
	:: op == OP_DISCARD_B -> discard(B)
	:: op == OP_SAME_AB -> same(A)
	:: op == OP_SAME_BA -> same(B)
	:: op == OP_CLONE_AB -> clone(A)
	:: op == OP_CLONE_BA -> clone(B)
	:: op == OP_DISCARD_AB -> discard_both()
	fi
}

proctype committer()
{
	end: do
	:: d_step {
		frozen_lsn == durable_lsn && frozen_lsn + 1 < next_lsn ->
		frozen_lsn = next_lsn - 1;
		reach_new[A] = 1 << map[A];
		reach_new[B] = 1 << map[B]
	   }
	:: d_step {
		frozen_lsn > durable_lsn ->
		durable_lsn = frozen_lsn;
		reach[A] = reach_new[A];
		reach[B] = reach_new[B]
	   }
	od
}

inline start(l, p, value)
{
	map[l] = p;
	content[p] = value;
	truth[l] = value;
	reach[l] = 1 << p;
	reach_new[l] = 1 << p;
	if
	:: p != 0 -> refs[p]++
	:: else
	fi
}

init {
	byte ops[CLIENTS], n, lowest;

	atomic {
		if
		:: start(A, 1, 1); start(B, 2, 1)
		:: start(A, 1, 1); start(B, 2, 2)
		:: start(A, 1, 1); start(B, 1, 1); flag[A] = 1; flag[B] = 1
		:: start(A, 1, 1); start(B, 0, 0)
		fi;
		/* In ascending order, as clients differ in nothing else; a block has one reader. */
		do
		:: n < CLIENTS ->
			select(lowest : 0 .. OP_LAST);
			if
			:: n == 0 || lowest > ops[n - 1] ||
			   (lowest == ops[n - 1] && lowest > OP_READ_B)
			:: else -> lowest = 255
			fi;
			if
			:: lowest == 255 -> goto dead
			:: else -> ops[n] = lowest; n++
			fi
		:: else -> break
		od;
		run committer();
		run client(0, ops[0]);
		run client(1, ops[1]);
		run client(2, ops[2]);
#if CLIENTS == 4
		run client(3, ops[3])
#endif
	};
dead:
	skip
}
