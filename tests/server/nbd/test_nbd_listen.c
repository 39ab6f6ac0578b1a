/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * test_nbd_listen - what a connection over TCP inherits from its listening socket
 */
#include <criterion/criterion.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include "server/nbd/nbd_listen.h"

Test(nbd_listen, a_peer_that_takes_nothing_is_given_up_after_two_minutes, .timeout = 60)
{
	struct sockaddr_storage address;
	socklen_t len = sizeof(address);
	struct nbd_listen_tcp listener;
	const char *message;
	int client, server, value = 0;

	cr_assert_eq(nbd_listen_tcp("127.0.0.1", 0, &listener, &message), 0);
	cr_assert_eq(getsockname(listener.fds[0], (struct sockaddr *)&address, &len), 0);
	client = socket(address.ss_family, SOCK_STREAM, 0);
	cr_assert_eq(connect(client, (struct sockaddr *)&address, len), 0);
	server = accept(listener.fds[0], NULL, NULL);
	cr_assert_geq(server, 0);
	len = sizeof(value);
	cr_assert_eq(getsockopt(server, IPPROTO_TCP, TCP_USER_TIMEOUT, &value, &len), 0);
	cr_assert_eq(value, 120000);
	close(server);
	close(client);
	close(listener.fds[0]);
}
