/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * ctl_limits - every maximum and time limit of the control protocol
 *
 * docs/control-protocol.md publishes them. Together they bound what the control side of a
 * server can hold: CTL_HELD_BYTES_MAX for calls and unsent answers, beyond that one call a
 * connection that has nothing else, a line of input a connection, and the scratch of CTL_JOBS_MAX
 * jobs.
 */
#ifndef SERVER_CONTROL_PROTOCOL_CTL_LIMITS_H
#define SERVER_CONTROL_PROTOCOL_CTL_LIMITS_H

#define CTL_LINE_BYTES_MAX   (1024u * 1024u) /* of a message to the server, newline not counted */
#define CTL_ANSWER_BYTES_MAX (16u * 1024u * 1024u) /* what a client must be ready to take */
#define CTL_CONNECTIONS_MAX  32u
#define CTL_STRANGERS_MAX    8u /* of them, peers that may only look */
#define CTL_CALLS_MAX	     64u /* unanswered, of one connection; then its reading stops */
#define CTL_CONN_BYTES_MAX   (4u * 1024u * 1024u) /* calls and answers of one connection */
#define CTL_HELD_BYTES_MAX   (32u * 1024u * 1024u) /* calls and answers of all */
#define CTL_JOBS_MAX	     16u /* same and clone jobs that run at a time */
#define CTL_RANGES_MAX	     1024u /* of one call of same_ranges */
#define CTL_MAP_RUNS_MAX     1024u /* of one answer; the caller goes on from `mapped_to` */
#define CTL_MAP_BYTES_MAX    (64ull << 30)
#define CTL_CHANGES_MAX	     16384u /* ranges of one answer; the caller goes on from `listed_to` */

#define CTL_HALF_LINE_MS 30000u /* from a message's first byte to its newline */
#define CTL_UNSENT_MS	 30000u /* an answer of which no byte could be sent */
#define CTL_IDLE_MS	 600000u /* nothing asked, nothing under way */
#define CTL_GOODBYE_MS	 2000u /* sending the last answers when the server stops */

#endif
