/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * process - what a program makes of what it inherits: descriptors 0 to 2, and the signals
 *
 * Both programs call process_begin() before they open anything.
 *
 * Descriptors: a store opened while one of 0 to 2 is closed would get that number, and log lines
 * would be written onto it. What is missing becomes /dev/null.
 *
 * Signals: most end a process by default, as SIGKILL does, and a volume's clients with it. So each
 * one is decided for:
 *
 *   ignored by both       PIPE, XFSZ          the write's own error is what counts
 *                         USR1, USR2, ALRM, VTALRM, PROF, IO, STKFLT, PWR, real-time ones:
 *                                             we set no timer and ask for none of them
 *   ignored by a server   HUP, TTIN, TTOU     its terminal may go, and may not stop it
 *   ask a server to stop  TERM, INT, XCPU     XCPU: the limit of processor time is near
 *   left as they are      QUIT, TSTP and CONT (somebody at the keyboard), CHLD, URG, WINCH (nothing
 *                         happens), and those that say that the program is wrong: ABRT, BUS, FPE,
 *                         ILL, SEGV, SYS, TRAP
 *
 * A command is ended by the others, like any command; those that have something to finish catch
 * them. Nothing inherited stays blocked.
 *
 * Errors    0 or a negative errno: no /dev/null; nothing must be opened then.
 * Threads   before the first one is started.
 */
#ifndef SERVER_BASE_PROCESS_H
#define SERVER_BASE_PROCESS_H

int process_begin(void);

/* Before another program is executed: what process_begin() ignores takes its default again. */
void process_undo_signals(void);

/* A server's signals: those that ask it to stop come to on_stop. */
void process_serve(void (*on_stop)(int number));

/* In a child, before another program is executed: these become its descriptors 0, 1 and 2, whatever
 * their numbers are, and it gets no other one. */
int process_hand_down(int in, int out, int err);

#endif
