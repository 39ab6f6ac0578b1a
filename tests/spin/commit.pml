/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * commit - a model of the journal, the checkpoint, the reuse of space, and recovery, for spin
 *
 * A volume of two logical blocks: L0 has its entry in the only leaf, L1 in the root page (as a
 * LINEAR region has). Three data blocks, a ring of RING blocks with one record each, two slots for
 * the leaf, two for the root, two superblocks. The leaf's first slot becomes a fourth data block
 * once its place is given back. The engine runs until LSN_MAX edits were made; it may crash before
 * every step, also inside recovery, CRASHES times. Spin tries every order of the steps and every
 * outcome of every crash.
 *
 * The store: a cell is a block that is written whole. S[] is what is durable, V[] what was written
 * since; a flush that was submitted covers what was in V[] then. A crash leaves of every cell in
 * V[] the old, the new, or garbage, which a checksum shows. One flush is in flight at a time, and
 * others join the next (flusher.c).
 *
 * How the steps map to core/
 *   write_data, publish   a write into a new block, then its edit: the data write's completion
 *                         comes before journal_append() (I2); ring space was reserved before
 *                         (journal_reserve(), I23)
 *   journal_*             journal.c: start(), write_group(), written(), flushed(), with the same
 *                         four states; a group is frozen before the flush that covers its data is
 *                         submitted
 *   free_lsn, ALLOCATABLE pending.c: a freed block waits for the record that freed it, a leaf's
 *                         place for a checkpoint that began after it (the quarantine)
 *   checkpoint_*          checkpoint.c: boundary of a durable commit (struct journal_boundary); the
 *                         leaf is copied; written to its other slot when the journal is durable up
 *                         to the copy's LSN (I18); flush; the same with the root, which names the
 *                         leaf's generation; flush; the other superblock; flush; then
 *                         journal_set_tail() and pending_release_places()
 *   recover               recovery_log.c: newest superblock, pages by generation, replay of whole
 *                         groups of this epoch by page LSN (I20); then a checkpoint with the next
 *                         epoch, and only then are requests served (I21, journal_restart())
 *
 * What is checked, after each crash
 *   - A superblock, the root and the leaf that it names are there and whole (I21).
 *   - Recovery reaches at least the last edit that was reported durable, and no edit that was never
 *     made (I1).
 *   - Both entries, the source's maybe_shared flag and the leaf's place are what the edits up to
 *     there, one after the other, make (I6, I19, I20): history[] remembers them apart from the
 *     engine. So does the number of the leaf's edits, which stands for all that an edit adds to and
 *     does not set (refcounts).
 *   - The data that each entry leads to is what was written for it (I2, I3).
 *   - No page is newer than the last edit that was recovered (I18).
 * With CRASHES 0 the engine has to reach the end: all edits made, durable, and the ring empty
 * (I23).
 *
 * Bugs are put in with -D; each has to be found (see docs/models.md):
 *   PAGE_BEFORE_RECORD      a page goes home before its last record is durable
 *   RECORD_BEFORE_DATA      records are submitted before the data flush
 *   LATE_JOIN               an edit joins a group whose data flush was submitted before
 *   RING_BEFORE_SUPER       ring blocks are reused as soon as the superblock's write is submitted
 *   SLOT_BEFORE_SUPER       the next checkpoint begins before the superblock is durable
 *   SAME_SUPER              the superblock is written over itself
 *   SAME_SLOT               a page is written over its last copy instead of into the other slot
 *   REUSE_BEFORE_COMMIT     a freed block is reused before the record that freed it is durable
 *   PLACE_BEFORE_CHECKPOINT a leaf's place is reused when its record is durable, as if it were data
 *   OLD_EPOCH               records of an older epoch are replayed
 *   SERVE_BEFORE_EPOCH      requests are served while the new epoch's superblock is still being
 *                           written
 *   SUPER_BEFORE_ROOT       the superblock is written without a flush after the root
 *   LATE_TAIL               the tail is taken at the end of the checkpoint instead of its boundary
 *   NO_PAGE_LSN             records are replayed on pages that have them already
 *   TORN_GROUP              recovery replays a record although one before it is missing
 * And one change that the model shows to be harmless:
 *   ONE_PAGE_FLUSH          the root is written without a flush after the leaf: both are flushed
 *                           before the superblock that leads to them, and until then the old one
 *                           leads to neither
 */

#ifndef LSN_MAX
#define LSN_MAX 4
#endif
#ifndef CRASHES
#define CRASHES 2
#endif
#define RING 2

/* --- the store --- */

#define SUPER 0
#define ROOT  2
#define LEAF  4
#define RINGS 6
#define DATA  8 /* block 1 */
#define CELLS 11

#define NONE    -1 /* in V: nothing was written */
#define GARBAGE -2

short S[CELLS];
short V[CELLS];
bit covered[CELLS]; /* by the flush in flight */
bit flushing;

#define BLOCKS 4
#define PLACE  4 /* the block that is the leaf's first slot while it has a place */
#define CELL(d) ((d) == PLACE -> LEAF : DATA + (d) - 1)

/* What is in a cell. A data block holds the name of the edit that it was written for. */
#define NAME(life, lsn) (1 + (life) * 16 + (lsn))

#define LEAF_PAGE(gen, count, lsn, flag, d) \
	(16384 | ((gen) & 7) << 10 | (count) << 8 | (lsn) << 4 | (flag) << 3 | (d))
#define PAGE_D(v)    ((v) & 7)
#define PAGE_BIT(v)  (((v) >> 3) & 1)
#define PAGE_LSN(v)  (((v) >> 4) & 15)
#define LEAF_COUNT(v) (((v) >> 8) & 3)
#define LEAF_IS(v, gen) ((v) > 0 && ((v) >> 10) == (16 | ((gen) & 7)))
#define ROOT_PAGE(gen, leaf_gen, lsn, placed, d) \
	(((gen) & 7) << 11 | ((leaf_gen) & 7) << 8 | (lsn) << 4 | (placed) << 3 | (d))
#define ROOT_LEAF_GEN(v) (((v) >> 8) & 7)
#define ROOT_IS(v, gen)  ((v) >= 0 && ((v) >> 11) == ((gen) & 7))

#define SUPER_BLOCK(number, root_gen, epoch, tail) \
	(8192 | (number) << 10 | ((root_gen) & 7) << 7 | (epoch) << 4 | (tail))
#define SUPER_VALID(v)  ((v) > 0)
#define SUPER_NUMBER(v) (((v) >> 10) & 7)
#define SUPER_ROOT_GEN(v) (((v) >> 7) & 7)
#define SUPER_EPOCH(v)  (((v) >> 4) & 7)
#define SUPER_TAIL(v)   ((v) & 15)

#define MAP_LEAF 0 /* L0 reads from d */
#define MAP_ROOT 1 /* L1 reads from d */
#define SHARE    2 /* L1 reads from d, as L0 does, whose flag is set */
#define DROP     3 /* L0 becomes a hole and the leaf's place is given back */

#define RECORD(epoch, lsn, kind, d, last) \
	(8192 | (epoch) << 10 | (lsn) << 6 | (last) << 5 | (d) << 2 | (kind))
#define RECORD_EPOCH(v) (((v) >> 10) & 7)
#define RECORD_LSN(v)   (((v) >> 6) & 15)
#define RECORD_LAST(v)  (((v) >> 5) & 1)
#define RECORD_D(v)     (((v) >> 2) & 7)
#define RECORD_KIND(v)  ((v) & 3)

/* --- the engine's memory --- */

byte next_lsn;
byte durable_lsn;
byte tail;    /* of the durable superblock: an LSN and, as a record is a block, a ring place */
byte epoch;
byte number;  /* of the durable superblock */
bit serving;

byte leaf_d;
bit leaf_flag;
byte leaf_count; /* of its edits, modulo 4 */
byte leaf_lsn;
byte leaf_first_lsn; /* of the first edit that is in no copy; 0: clean */
byte root_d;
bit root_placed;
byte root_lsn;
byte root_leaf_gen;
bit root_dirty;
byte root_gen;

byte free_lsn[BLOCKS + 1]; /* the edit that took the last reference; 0: settled */

#define IDLE 0
byte writing_d;       /* a write that has its data in this block; 0: none */
bit writing_root;     /* for L1, else for L0 */

#define DATA_FLUSH 1
#define WRITE      2
#define FLUSH      3
byte journal;         /* its state */
byte frozen_lsn;      /* last of the frozen group; 0: none */
byte flushing_lsn;    /* last of the group that was written */
bit journal_waits;    /* for the flush after the one in flight */
bit journal_rides;

#define BEGUN       1
#define LEAF_COPIED 2
#define LEAF_FLUSH  3
#define ROOT_COPIED 4
#define ROOT_FLUSH  5
#define SUPER_WRITE 6
#define SUPER_FLUSH 7
byte checkpoint;      /* its state */
byte boundary;
short copy;
bit checkpoint_waits;
bit checkpoint_rides;

/* --- what is known without looking at the engine --- */

byte life;
byte history[LSN_MAX + 1]; /* kind, block, life */
#define HISTORY(kind, d, life) ((life) << 5 | (d) << 2 | (kind))

/* --- store --- */

/* What was written before and not flushed may or may not have arrived. */
inline write_cell(cell, value)
{
	if
	:: V[cell] != NONE -> S[cell] = V[cell]
	:: V[cell] != NONE && !covered[cell]
	:: V[cell] == NONE
	fi;
	V[cell] = value;
	covered[cell] = 0
}

inline submit_flush()
{
	flushing = 1;
	journal_rides = journal_waits;
	journal_waits = 0;
	checkpoint_rides = checkpoint_waits;
	checkpoint_waits = 0;
	i = 0;
	do
	:: i < CELLS -> covered[i] = (V[i] != NONE); i++
	:: else -> break
	od;
	i = 0
}

inline join_flush(who_waits)
{
	who_waits = 1;
	if
	:: !flushing -> submit_flush()
	:: else
	fi
}

inline flush_done()
{
	i = 0;
	do
	:: i < CELLS ->
		if
		:: covered[i] -> S[i] = V[i]; V[i] = NONE; covered[i] = 0
		:: else
		fi;
		i++
	:: else -> break
	od;
	i = 0;
	flushing = 0;
	ride_journal = journal_rides;
	ride_checkpoint = checkpoint_rides;
	journal_rides = 0;
	checkpoint_rides = 0;
	if
	:: journal_waits || checkpoint_waits -> submit_flush()
	:: else
	fi
}

/* --- edits --- */

#define MAPPED(d) ((root_placed && leaf_d == (d)) || root_d == (d))
#ifdef REUSE_BEFORE_COMMIT
#define DATA_SETTLED(d) true
#else
#define DATA_SETTLED(d) (free_lsn[d] <= durable_lsn)
#endif
#ifdef PLACE_BEFORE_CHECKPOINT
#define PLACE_SETTLED (!root_placed && free_lsn[PLACE] <= durable_lsn)
#else
#define PLACE_SETTLED (!root_placed && free_lsn[PLACE] < tail)
#endif
/* The place is settled by a checkpoint once; from then on it is data as any other. */
#define ALLOCATABLE(d) (!MAPPED(d) && \
	((d) == PLACE -> PLACE_SETTLED && DATA_SETTLED(d) : DATA_SETTLED(d)))

#ifdef RING_BEFORE_SUPER
#define RING_TAIL (checkpoint >= SUPER_WRITE -> boundary : tail)
#else
#define RING_TAIL tail
#endif
#define ROOM (serving && next_lsn <= LSN_MAX && next_lsn - RING_TAIL < RING && writing_d == 0)

inline write_data(d)
{
	write_cell(CELL(d), NAME(life, next_lsn));
	writing_d = d
}

/* To one page each, as replay does it. */
inline apply_leaf(lsn, kind, d)
{
	if
	:: kind == MAP_LEAF -> leaf_d = d; leaf_flag = 0
	:: kind == SHARE -> leaf_flag = 1
	:: else
	fi;
	if
	:: kind == MAP_LEAF || kind == SHARE ->
		leaf_count = (leaf_count + 1) & 3;
		leaf_lsn = lsn;
		leaf_first_lsn = (leaf_first_lsn == 0 -> lsn : leaf_first_lsn)
	:: else
	fi
}

inline apply_root(lsn, kind, d)
{
	if
	:: kind == MAP_ROOT || kind == SHARE -> root_d = d; root_lsn = lsn; root_dirty = 1
	:: kind == DROP ->
		root_placed = 0;
		root_lsn = lsn;
		root_dirty = 1;
		/* The leaf is forgotten. */
		leaf_d = 0;
		leaf_flag = 0;
		leaf_count = 0;
		leaf_lsn = 0;
		leaf_first_lsn = 0
	:: else
	fi
}

inline publish(kind, d)
{
	old = 0;
	if
	:: kind == MAP_LEAF || kind == DROP -> old = leaf_d
	:: else -> old = root_d
	fi;
	history[next_lsn] = HISTORY(kind, d, life);
	apply_leaf(next_lsn, kind, d);
	apply_root(next_lsn, kind, d);
	if
	:: kind == DROP ->
		free_lsn[PLACE] = next_lsn;
		if
		:: checkpoint == LEAF_COPIED -> copy = 0
		:: else
		fi
	:: else
	fi;
	if
	:: old != 0 && !MAPPED(old) -> free_lsn[old] = next_lsn
	:: else
	fi;
	writing_d = 0;
	writing_root = 0;
	next_lsn++;
	old = 0
}

/* --- the journal --- */

inline journal_start()
{
#ifdef RECORD_BEFORE_DATA
	frozen_lsn = next_lsn - 1;
	journal = WRITE
#else
#ifndef LATE_JOIN
	frozen_lsn = next_lsn - 1;
#endif
	journal = DATA_FLUSH;
	join_flush(journal_waits)
#endif
}

inline write_group()
{
	n = durable_lsn + 1;
	do
	:: n <= frozen_lsn ->
		write_cell(RINGS + n % RING, RECORD(epoch, n, history[n] & 3, (history[n] >> 2) & 7,
						    (n == frozen_lsn)));
		n++
	:: else -> break
	od;
	n = 0;
	flushing_lsn = frozen_lsn;
	frozen_lsn = 0;
	journal = FLUSH;
	/* This flush is the next group's data flush too, if one is wanted. */
	if
	:: next_lsn - 1 > flushing_lsn -> frozen_lsn = next_lsn - 1
	:: true
	fi;
	join_flush(journal_waits)
}

inline journal_advance()
{
	if
	:: journal == DATA_FLUSH ->
#ifdef LATE_JOIN
		frozen_lsn = next_lsn - 1;
#endif
		journal = WRITE
	:: else ->
		durable_lsn = flushing_lsn;
		flushing_lsn = 0;
		journal = (frozen_lsn != 0 -> WRITE : IDLE)
	fi
}

/* --- the checkpoint --- */

#ifdef PAGE_BEFORE_RECORD
#define HOME_ALLOWED true
#else
#define HOME_ALLOWED (PAGE_LSN(copy) <= durable_lsn)
#endif
#ifdef SAME_SLOT
#define SLOT(gen) 0
#else
#define SLOT(gen) ((gen) & 1)
#endif
#ifdef SAME_SUPER
#define SUPER_COPY(number) 0
#else
#define SUPER_COPY(number) ((number) & 1)
#endif

/* The number has three bits here. Only a bug makes it run out, and is not to be found by that. */
#ifdef SLOT_BEFORE_SUPER
#define NUMBERS_LEFT (number < 5)
#else
#define NUMBERS_LEFT true
#endif

inline checkpoint_begin(from)
{
	boundary = from;
	checkpoint = BEGUN
}

inline checkpoint_copy_leaf()
{
	copy = 0;
	if
	:: root_placed && leaf_first_lsn != 0 && leaf_first_lsn < boundary ->
		copy = LEAF_PAGE(root_leaf_gen + 1, leaf_count, leaf_lsn, leaf_flag, leaf_d);
		leaf_first_lsn = 0
	:: else
	fi;
	checkpoint = LEAF_COPIED
}

inline checkpoint_copy_root()
{
	copy = 0;
	if
	:: root_dirty ->
		copy = ROOT_PAGE(root_gen + 1, root_leaf_gen, root_lsn, root_placed, root_d);
		root_dirty = 0
	:: else
	fi;
	checkpoint = ROOT_COPIED
}

inline checkpoint_write_leaf()
{
	if
	:: copy != 0 ->
		root_leaf_gen = (root_leaf_gen + 1) & 7;
		root_dirty = 1;
		write_cell(LEAF + SLOT(root_leaf_gen), copy);
		copy = 0
	:: else
	fi;
#ifdef ONE_PAGE_FLUSH
	checkpoint_copy_root()
#else
	checkpoint = LEAF_FLUSH;
	join_flush(checkpoint_waits)
#endif
}

inline checkpoint_end()
{
	number++;
#ifndef SLOT_BEFORE_SUPER
	tail = boundary;
#endif
	boundary = 0;
	serving = 1;
	checkpoint = IDLE
}

inline checkpoint_write_super()
{
#ifdef LATE_TAIL
	boundary = durable_lsn + 1;
#endif
	assert(number < 7);
	write_cell(SUPER + SUPER_COPY(number + 1),
		   SUPER_BLOCK(number + 1, root_gen, epoch, boundary));
#ifdef SLOT_BEFORE_SUPER
	checkpoint_end()
#else
	checkpoint = SUPER_FLUSH;
	join_flush(checkpoint_waits)
#endif
}

inline checkpoint_write_root()
{
	if
	:: copy != 0 ->
		root_gen = (root_gen + 1) & 7;
		write_cell(ROOT + SLOT(root_gen), copy);
		copy = 0
	:: else
	fi;
#ifdef SUPER_BEFORE_ROOT
	checkpoint = SUPER_WRITE
#else
	checkpoint = ROOT_FLUSH;
	join_flush(checkpoint_waits)
#endif
}

inline checkpoint_advance()
{
	if
	:: checkpoint == LEAF_FLUSH -> checkpoint_copy_root()
	:: checkpoint == ROOT_FLUSH -> checkpoint = SUPER_WRITE
	:: checkpoint == SUPER_FLUSH -> checkpoint_end()
	fi
}

/* --- a crash and what comes after --- */

inline lose()
{
	i = 0;
	do
	:: i < CELLS ->
		if
		:: V[i] != NONE -> S[i] = V[i]
		:: V[i] != NONE && i < RINGS -> S[i] = GARBAGE
		:: true
		fi;
		V[i] = NONE;
		covered[i] = 0;
		i++
	:: else -> break
	od;
	i = 0
}

inline forget()
{
	flushing = 0;
	serving = 0;
	writing_d = 0;
	writing_root = 0;
	journal = IDLE;
	frozen_lsn = 0;
	flushing_lsn = 0;
	journal_waits = 0;
	journal_rides = 0;
	checkpoint = IDLE;
	boundary = 0;
	copy = 0;
	checkpoint_waits = 0;
	checkpoint_rides = 0;
	leaf_d = 0;
	leaf_flag = 0;
	leaf_count = 0;
	leaf_lsn = 0;
	leaf_first_lsn = 0;
	root_dirty = 0;
	free_lsn[1] = 0;
	free_lsn[2] = 0;
	free_lsn[3] = 0;
	free_lsn[4] = 0
}

inline read_super()
{
	assert(SUPER_VALID(S[SUPER]) || SUPER_VALID(S[SUPER + 1]));
	i = SUPER;
	if
	:: !SUPER_VALID(S[SUPER]) -> i = SUPER + 1
	:: SUPER_VALID(S[SUPER]) && SUPER_VALID(S[SUPER + 1]) &&
	   SUPER_NUMBER(S[SUPER + 1]) > SUPER_NUMBER(S[SUPER]) -> i = SUPER + 1
	:: else
	fi;
	number = SUPER_NUMBER(S[i]);
	root_gen = SUPER_ROOT_GEN(S[i]);
	epoch = SUPER_EPOCH(S[i]);
	tail = SUPER_TAIL(S[i]);
	i = 0
}

inline read_pages()
{
	copy = S[ROOT + SLOT(root_gen)];
	assert(ROOT_IS(copy, root_gen));
	root_d = PAGE_D(copy);
	root_placed = PAGE_BIT(copy);
	root_lsn = PAGE_LSN(copy);
	root_leaf_gen = ROOT_LEAF_GEN(copy);
	if
	:: root_placed ->
		copy = S[LEAF + SLOT(root_leaf_gen)];
		assert(LEAF_IS(copy, root_leaf_gen));
		leaf_d = PAGE_D(copy);
		leaf_flag = PAGE_BIT(copy);
		leaf_count = LEAF_COUNT(copy);
		leaf_lsn = PAGE_LSN(copy)
	:: else
	fi;
	copy = 0
}

#ifdef OLD_EPOCH
#define OF_THIS_LIFE(v) true
#else
#define OF_THIS_LIFE(v) (RECORD_EPOCH(v) == epoch)
#endif
#define RECORD_IS(v, lsn) ((v) > 0 && RECORD_LSN(v) == (lsn) && OF_THIS_LIFE(v))

/* last: of the last whole group. */
inline find_end()
{
	n = tail;
	last = tail - 1;
	do
	:: n < tail + RING && RECORD_IS(S[RINGS + n % RING], n) ->
		if
		:: RECORD_LAST(S[RINGS + n % RING]) -> last = n
		:: else
		fi;
		n++
#ifdef TORN_GROUP
	:: n < tail + RING && !RECORD_IS(S[RINGS + n % RING], n) -> n++
	:: n == tail + RING -> break
#else
	:: else -> break
#endif
	od
}

#ifdef NO_PAGE_LSN
#define NEWER(page_lsn) true
#else
#define NEWER(page_lsn) (n > (page_lsn))
#endif

inline replay()
{
	n = tail;
	do
	:: n <= last ->
		if
		:: RECORD_IS(S[RINGS + n % RING], n) ->
			old = S[RINGS + n % RING] & 31;
			if
			:: root_placed && NEWER(leaf_lsn) -> apply_leaf(n, (old & 3), (old >> 2))
			:: else
			fi;
			if
			:: NEWER(root_lsn) -> apply_root(n, (old & 3), (old >> 2))
			:: else
			fi
		:: else
		fi;
		n++
	:: else -> break
	od;
	n = 0;
	old = 0
}

/* What the edits up to `last` make: at first L0 reads edit 0's data and L1 is a hole. */
inline remember()
{
	d0 = 1;
	name0 = NAME(0, 0);
	flag0 = 0;
	count0 = 0;
	placed = 1;
	d1 = 0;
	name1 = 0;
	n = 1;
	do
	:: n <= last ->
		old = (history[n] >> 2) & 7;
		if
		:: (history[n] & 3) == MAP_LEAF ->
			d0 = old;
			name0 = NAME(history[n] >> 5, n);
			flag0 = 0;
			count0 = (count0 + 1) & 3
		:: (history[n] & 3) == MAP_ROOT -> d1 = old; name1 = NAME(history[n] >> 5, n)
		:: (history[n] & 3) == SHARE ->
			d1 = d0;
			name1 = name0;
			flag0 = 1;
			count0 = (count0 + 1) & 3
		:: (history[n] & 3) == DROP -> d0 = 0; name0 = 0; flag0 = 0; count0 = 0; placed = 0
		fi;
		n++
	:: else -> break
	od;
	n = 0;
	old = 0
}

inline check_recovered()
{
	assert(last >= durable_lsn && last < next_lsn);
	assert(leaf_lsn <= last && root_lsn <= last);
	remember();
	assert(root_placed == placed && root_d == d1);
	assert(leaf_d == d0 && leaf_flag == flag0 && leaf_count == count0);
	assert(d0 == 0 || S[CELL(d0)] == name0);
	assert(d1 == 0 || S[CELL(d1)] == name1);
	d0 = 0;
	d1 = 0;
	name0 = 0;
	name1 = 0;
	flag0 = 0;
	count0 = 0;
	placed = 0
}

inline recover()
{
	forget();
	read_super();
	read_pages();
	find_end();
	replay();
	check_recovered();
	/* Those behind were never reported; their numbers are used again. */
	n = last + 1;
	do
	:: n <= LSN_MAX -> history[n] = 0; n++
	:: else -> break
	od;
	n = 0;
	next_lsn = last + 1;
	durable_lsn = last;
	life++;
	epoch++;
#ifdef SERVE_BEFORE_EPOCH
	serving = 1;
#endif
	checkpoint_begin(last + 1);
	last = 0
}

inline format()
{
	i = 0;
	do
	:: i < CELLS -> V[i] = NONE; i++
	:: else -> break
	od;
	i = 0;
	S[SUPER] = SUPER_BLOCK(0, 0, 1, 1);
	S[ROOT] = ROOT_PAGE(0, 0, 0, 1, 0);
	S[LEAF] = LEAF_PAGE(0, 0, 0, 0, 1);
	S[DATA] = NAME(0, 0);
	next_lsn = 1;
	tail = 1;
	epoch = 1;
	serving = 1;
	leaf_d = 1;
	root_placed = 1
}

init {
	byte i, n, last, old, d0, d1, name0, name1, count0;
	bit flag0, placed, ride_journal, ride_checkpoint;

	d_step { format() };
	do
	/* edits: L0 and L1 written anew, L1 shared with L0, L0 and its leaf given up */
	:: atomic {
		ROOM ->
		if
		:: root_placed -> writing_root = 0
		:: writing_root = 1
		fi;
		if
		:: ALLOCATABLE(1) -> write_data(1)
		:: !ALLOCATABLE(1) && ALLOCATABLE(2) -> write_data(2)
		:: !ALLOCATABLE(1) && !ALLOCATABLE(2) && ALLOCATABLE(3) -> write_data(3)
		:: ALLOCATABLE(PLACE) -> write_data(PLACE)
		:: else -> writing_root = 0
		fi
	   }
	:: d_step { writing_d != 0 && !writing_root && root_placed -> publish(MAP_LEAF, writing_d) }
	:: d_step { writing_d != 0 && writing_root -> publish(MAP_ROOT, writing_d) }
	:: d_step { ROOM && root_placed && leaf_d != root_d -> publish(SHARE, leaf_d) }
	:: d_step { ROOM && root_placed -> publish(DROP, 0) }

	:: d_step { journal == IDLE && serving && next_lsn - 1 > durable_lsn -> journal_start() }
	:: atomic { journal == WRITE -> write_group() }

	:: d_step {
		checkpoint == IDLE && durable_lsn + 1 > tail && NUMBERS_LEFT ->
		checkpoint_begin(durable_lsn + 1)
	   }
	:: d_step { checkpoint == BEGUN -> checkpoint_copy_leaf() }
	:: atomic { checkpoint == LEAF_COPIED && HOME_ALLOWED -> checkpoint_write_leaf() }
	:: atomic { checkpoint == ROOT_COPIED && HOME_ALLOWED -> checkpoint_write_root() }
	:: atomic { checkpoint == SUPER_WRITE -> checkpoint_write_super() }

	:: atomic {
		flushing ->
		flush_done();
		if
		:: ride_journal -> journal_advance()
		:: else
		fi;
		if
		:: ride_checkpoint -> checkpoint_advance()
		:: else
		fi;
		ride_journal = 0;
		ride_checkpoint = 0
	   }

#if CRASHES > 0
	:: atomic {
		lose();
		d_step { recover() };
		if
		:: life > CRASHES - 1 -> break
		:: else
		fi
	   }
#else
	:: else ->
		assert(next_lsn > LSN_MAX && durable_lsn == LSN_MAX && tail == next_lsn);
		break
#endif
	od
}
