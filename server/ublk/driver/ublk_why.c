/* SPDX-License-Identifier: GPL-2.0-or-later */
/* ublk_why - see the header */
#include "server/ublk/driver/ublk_why.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "server/ublk/driver/ublk_abi.h"

static void say(char ret_text[UBLK_WHY_BYTES], const char *text)
{
	snprintf(ret_text, UBLK_WHY_BYTES, "%s", text);
}

void ublk_why_no_control(int error, bool has_driver, char ret_text[UBLK_WHY_BYTES])
{
	bool absent = error == -ENOENT || error == -ENXIO || error == -ENODEV;

	if (absent && has_driver)
		say(ret_text, "the kernel has the ublk driver, but there is no " UBLK_CONTROL_PATH
			      " here: hand it to this container");
	else if (absent)
		say(ret_text, "there is no " UBLK_CONTROL_PATH ": the kernel's ublk driver is not "
			      "loaded (`modprobe ublk_drv`; Linux 6.5 or newer)");
	else if (error == -EACCES || error == -EPERM)
		say(ret_text, UBLK_CONTROL_PATH " may not be opened: this needs root, or a device "
						"node that this user may read and write");
	else
		snprintf(ret_text, UBLK_WHY_BYTES, "cannot open %s: %s", UBLK_CONTROL_PATH,
			 strerror(-error));
}

void ublk_why_no_ring(int error, char ret_text[UBLK_WHY_BYTES])
{
	if (error == -EPERM || error == -EACCES)
		say(ret_text, "io_uring is refused: by kernel.io_uring_disabled, or by a "
			      "container's system call filter");
	else if (error == -ENOSYS)
		say(ret_text, "this kernel has no io_uring, or a container hides it");
	else if (error == -EINVAL)
		say(ret_text, "this kernel's io_uring is too old for ublk's control commands "
			      "(Linux 6.5 or newer)");
	else
		snprintf(ret_text, UBLK_WHY_BYTES, "cannot make an io_uring: %s", strerror(-error));
}

void ublk_why_no_features(int error, char ret_text[UBLK_WHY_BYTES])
{
	if (error == -ETIMEDOUT)
		say(ret_text, "the kernel's ublk driver does not answer");
	else if (error == -EPERM || error == -EACCES)
		say(ret_text, "the kernel's ublk driver refuses this user: ublk needs root "
			      "(CAP_SYS_ADMIN)");
	else
		snprintf(ret_text, UBLK_WHY_BYTES,
			 "this kernel's ublk driver cannot say what it can do (%s): Linux 6.5 or "
			 "newer is needed",
			 strerror(-error));
}

const char *ublk_why_features(uint64_t features)
{
	if ((features & UBLK_F_IOCTL_ENCODE) == 0)
		return "this kernel's ublk driver lacks ioctl-encoded commands (Linux 6.4)";
	if ((features & UBLK_F_RECOVERY) == 0)
		return "this kernel's ublk driver lacks user recovery (Linux 6.1)";
	if ((features & UBLK_F_RECOVERY_REISSUE) == 0)
		return "this kernel's ublk driver lacks user recovery with reissue (Linux 6.1)";
	return NULL;
}

static const char *name_of(uint32_t op)
{
	switch (op) {
	case UBLK_CTL_GET_INFO:
	case UBLK_CTL_GET_INFO2:
		return "GET_DEV_INFO";
	case UBLK_CTL_ADD:
		return "ADD_DEV";
	case UBLK_CTL_DEL:
	case UBLK_CTL_DEL_ASYNC:
		return "DEL_DEV";
	case UBLK_CTL_START:
		return "START_DEV";
	case UBLK_CTL_STOP:
		return "STOP_DEV";
	case UBLK_CTL_TRY_STOP:
		return "TRY_STOP_DEV";
	case UBLK_CTL_SET_PARAMS:
		return "SET_PARAMS";
	case UBLK_CTL_GET_PARAMS:
		return "GET_PARAMS";
	case UBLK_CTL_START_RECOVERY:
		return "START_USER_RECOVERY";
	case UBLK_CTL_END_RECOVERY:
		return "END_USER_RECOVERY";
	default:
		return "a command";
	}
}

bool ublk_why_lacks(int error)
{
	return error == UBLK_RES_UNKNOWN || error == -EOPNOTSUPP || error == -EINVAL;
}

static const char *reason(uint32_t op, int error)
{
	if (op == UBLK_CTL_ADD && (error == -EEXIST || error == -ENOSPC))
		return "there is a device of that number already (sameblk list)";
	if (op == UBLK_CTL_ADD && error == -EPERM)
		return "this needs root (CAP_SYS_ADMIN)";
	if (op == UBLK_CTL_ADD && error == -EACCES)
		return "there are as many devices of unprivileged users as the kernel allows "
		       "(ublk_drv's parameter ublks_max)";
	if (error == -ENODEV)
		return "there is no such device";
	if (error == -ETIMEDOUT)
		return "the kernel did not answer in time";
	if (error == -ECANCELED)
		return "the device was removed, or refused a command, while it came up";
	if (op == UBLK_CTL_TRY_STOP && error == -EBUSY)
		return "it is open";
	if (op == UBLK_CTL_START_RECOVERY && error == -EBUSY)
		return "its server before has not ended yet";
	if (op == UBLK_CTL_START_RECOVERY && error == -EINVAL)
		return "it was made by a server that did not ask for recovery";
	if (error == UBLK_RES_UNKNOWN)
		return "this kernel's ublk driver has no such command";
	return strerror(-error);
}

void ublk_why_command(uint32_t op, uint32_t id, int error, char ret_text[UBLK_WHY_BYTES])
{
	if (id == UINT32_MAX)
		snprintf(ret_text, UBLK_WHY_BYTES, "%s: %s", name_of(op), reason(op, error));
	else
		snprintf(ret_text, UBLK_WHY_BYTES, "%s of /dev/ublkb%u: %s", name_of(op), id,
			 reason(op, error));
}
