/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * nbd_service - a volume served over NBD by a thread of this process, to sockets handed to it
 *
 * The store is a file in memory. Only what server/nbd/nbd_server.h and server/loop/loop.h offer is
 * used.
 *
 * Errors    whatever does not work ends the process.
 * Blocking  nbd_service_wait(), until the last connection is gone.
 */
#ifndef TESTS_FUZZ_NBD_SERVICE_H
#define TESTS_FUZZ_NBD_SERVICE_H

#include <stdint.h>

#define SERVICE_VOLUME_BYTES (4ull << 20)

void nbd_service_start(void);
/* The client's end of a new connection. */
int nbd_service_connect(void);
void nbd_service_wait(void);

#endif
