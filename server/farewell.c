/* SPDX-License-Identifier: GPL-2.0-or-later */
/* farewell - see the header */
#include "server/farewell.h"

#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static const char text_clean[] =
	"{\"jsonrpc\": \"2.0\", \"method\": \"ended\", \"params\": {\"clean\": true}}\n";
static const char text_failed[] =
	"{\"jsonrpc\": \"2.0\", \"method\": \"ended\", \"params\": {\"clean\": false}}\n";

bool farewell_add(struct farewell *farewell, int fd)
{
	if (farewell->count == FAREWELL_MAX) {
		close(fd);
		return false;
	}
	farewell->fds[farewell->count++] = fd;
	return true;
}

void farewell_say(struct farewell *farewell, bool clean)
{
	const char *text = clean ? text_clean : text_failed;

	for (unsigned i = 0; i < farewell->count; i++) {
		(void)send(farewell->fds[i], text, strlen(text), MSG_DONTWAIT | MSG_NOSIGNAL);
		close(farewell->fds[i]);
	}
	farewell->count = 0;
}
