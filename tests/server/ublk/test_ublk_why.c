/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * test_ublk_why - every absence is named, with what to do about it
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

#include "server/ublk/driver/ublk_abi.h"
#include "server/ublk/driver/ublk_why.h"

#define ALL (UBLK_F_RECOVERY | UBLK_F_RECOVERY_REISSUE | UBLK_F_IOCTL_ENCODE)

static char text[UBLK_WHY_BYTES];

static bool says(const char *words)
{
	return strstr(text, words) != NULL;
}

Test(ublk_why, a_driver_that_is_not_loaded_is_told_from_a_node_that_is_not_there)
{
	ublk_why_no_control(-ENOENT, false, text);
	cr_assert(says("modprobe ublk_drv"));
	ublk_why_no_control(-ENOENT, true, text);
	cr_assert(says("container"));
	cr_assert(!says("modprobe"));
}

Test(ublk_why, a_lack_of_permission_is_named)
{
	ublk_why_no_control(-EACCES, true, text);
	cr_assert(says("needs root"));
	ublk_why_no_features(-EPERM, text);
	cr_assert(says("CAP_SYS_ADMIN"));
	ublk_why_command(UBLK_CTL_ADD, UINT32_MAX, -EPERM, text);
	cr_assert(says("ADD_DEV"));
	cr_assert(says("needs root"));
}

Test(ublk_why, a_container_without_io_uring_is_told_from_a_kernel_that_is_too_old)
{
	ublk_why_no_ring(-EPERM, text);
	cr_assert(says("container"));
	cr_assert(says("io_uring_disabled"));
	ublk_why_no_ring(-ENOSYS, text);
	cr_assert(says("no io_uring"));
	ublk_why_no_ring(-EINVAL, text);
	cr_assert(says("too old"));
	ublk_why_no_features(-ENODEV, text);
	cr_assert(says("Linux 6.5"));
	ublk_why_no_features(-ETIMEDOUT, text);
	cr_assert(says("does not answer"));
}

Test(ublk_why, each_feature_that_is_missing_is_named)
{
	cr_assert_null(ublk_why_features(ALL));
	cr_assert_null(ublk_why_features(UINT64_MAX));
	cr_assert_not_null(strstr(ublk_why_features(ALL & ~UBLK_F_IOCTL_ENCODE), "ioctl"));
	cr_assert_not_null(strstr(ublk_why_features(ALL & ~UBLK_F_RECOVERY), "recovery"));
	cr_assert_not_null(strstr(ublk_why_features(ALL & ~UBLK_F_RECOVERY_REISSUE), "reissue"));
	cr_assert_not_null(ublk_why_features(0));
}

/* Linux 6.5 to 6.8 answer with a number of their own; EINVAL is for a device without privileges. */
Test(ublk_why, a_command_that_a_driver_lacks_is_told_from_one_that_failed)
{
	cr_assert(ublk_why_lacks(-524));
	cr_assert(ublk_why_lacks(-EOPNOTSUPP));
	cr_assert(ublk_why_lacks(-EINVAL));
	cr_assert(!ublk_why_lacks(0));
	cr_assert(!ublk_why_lacks(-ENODEV));
	cr_assert(!ublk_why_lacks(-ETIMEDOUT));
	ublk_why_command(UBLK_CTL_DEL_ASYNC, 5, -524, text);
	cr_assert(says("no such command"));
}

Test(ublk_why, a_command_that_failed_is_named_with_its_device)
{
	ublk_why_command(UBLK_CTL_START, 7, -ETIMEDOUT, text);
	cr_assert(says("START_DEV of /dev/ublkb7"));
	cr_assert(says("in time"));
	ublk_why_command(UBLK_CTL_START_RECOVERY, 3, -EBUSY, text);
	cr_assert(says("has not ended"));
	ublk_why_command(UBLK_CTL_ADD, 5, -EEXIST, text);
	cr_assert(says("already"));
	ublk_why_command(UBLK_CTL_START, 3, -ECANCELED, text);
	cr_assert(says("while it came up"));
	ublk_why_command(UBLK_CTL_DEL, 5, -ENODEV, text);
	cr_assert(says("no such device"));
	ublk_why_command(UBLK_CTL_SET_PARAMS, 5, -EIO, text);
	cr_assert(says(strerror(EIO)));
}
