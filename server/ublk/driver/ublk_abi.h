/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * ublk_abi - the numbers and layouts that a ublk server and the kernel's driver agree on
 *
 * A header of our own, because the one that distributions package is often older than the kernel
 * that runs. It has what sameblk uses and no more. Which of it a kernel knows is asked with
 * UBLK_CTL_GET_FEATURES, never concluded from its version.
 *
 * Units     sectors of 512 bytes, whatever the device's logical block size is.
 */
#ifndef SERVER_UBLK_DRIVER_UBLK_ABI_H
#define SERVER_UBLK_DRIVER_UBLK_ABI_H

#include <assert.h>
#include <stdint.h>
#include <sys/ioctl.h>

#define UBLK_CONTROL_PATH "/dev/ublk-control"
#define UBLK_SECTOR_BYTES 512u
#define UBLK_DEPTH_MAX	  4096u
#define UBLK_IDS_MAX	  (1u << 20)

/* Travels in the command area of an entry of 128 bytes. */
struct ublk_ctl_cmd {
	uint32_t id; /* UINT32_MAX: the driver chooses (ADD_DEV) */
	uint16_t queue; /* UINT16_MAX: none */
	uint16_t len_bytes; /* of what addr points to */
	uint64_t addr;
	uint64_t data;
	uint16_t path_bytes; /* of a device without privileges: its path comes first at addr */
	uint16_t pad;
	uint32_t reserved;
};

static_assert(sizeof(struct ublk_ctl_cmd) == 32, "as the kernel has it");

#define UBLK_CTL_READ(number)  _IOR('u', number, struct ublk_ctl_cmd)
#define UBLK_CTL_WRITE(number) _IOWR('u', number, struct ublk_ctl_cmd)

#define UBLK_CTL_GET_INFO	UBLK_CTL_READ(0x02)
#define UBLK_CTL_ADD		UBLK_CTL_WRITE(0x04)
#define UBLK_CTL_DEL		UBLK_CTL_WRITE(0x05)
#define UBLK_CTL_START		UBLK_CTL_WRITE(0x06) /* data: the server's process */
#define UBLK_CTL_STOP		UBLK_CTL_WRITE(0x07)
#define UBLK_CTL_SET_PARAMS	UBLK_CTL_WRITE(0x08)
#define UBLK_CTL_GET_PARAMS	UBLK_CTL_READ(0x09)
#define UBLK_CTL_START_RECOVERY UBLK_CTL_WRITE(0x10)
#define UBLK_CTL_END_RECOVERY	UBLK_CTL_WRITE(0x11) /* data: the server's process */
#define UBLK_CTL_GET_INFO2	UBLK_CTL_READ(0x12) /* with a path, for any device */
#define UBLK_CTL_GET_FEATURES	UBLK_CTL_READ(0x13)
#define UBLK_CTL_DEL_ASYNC	UBLK_CTL_READ(0x14) /* does not wait until all have closed it */
#define UBLK_CTL_TRY_STOP	UBLK_CTL_WRITE(0x17) /* EBUSY if anybody has it open */

/* What a driver answers to a command that it does not know: ENOTSUPP, which user space has no name
 * for, up to Linux 6.8; EOPNOTSUPP later. */
#define UBLK_RES_UNKNOWN (-524)

/* Features, which are also the flags of a device. */
#define UBLK_F_RECOVERY		(1ull << 3) /* the device outlives its server */
#define UBLK_F_RECOVERY_REISSUE (1ull << 4) /* and what was in flight is asked for again */
#define UBLK_F_UNPRIVILEGED	(1ull << 5)
#define UBLK_F_IOCTL_ENCODE	(1ull << 6) /* the commands as written here */
#define UBLK_F_USER_COPY	(1ull << 7)
#define UBLK_F_AUTO_BUF_REG	(1ull << 11)
#define UBLK_F_TRY_STOP		(1ull << 17)
/* Not needed for itself: it tells a driver (Linux 6.17) that waits, when a server has died, until
 * nobody uses a request's pages any more. */
#define UBLK_F_BUF_REG_OFF_DAEMON (1ull << 14)
/* What a device with zero copy is made with: the pages of a request become a buffer of the ring,
 * and can be copied too. And what the driver has to have for that. */
#define UBLK_ZERO_COPY	     (UBLK_F_USER_COPY | UBLK_F_AUTO_BUF_REG)
#define UBLK_ZERO_COPY_NEEDS (UBLK_ZERO_COPY | UBLK_F_BUF_REG_OFF_DAEMON)

enum ublk_state {
	UBLK_STATE_DEAD = 0, /* not started yet, or stopped */
	UBLK_STATE_LIVE = 1,
	UBLK_STATE_QUIESCED = 2, /* its server has gone; I/O waits */
	UBLK_STATE_FAIL_IO = 3, /* its server has gone; I/O fails */
};

struct ublk_info {
	uint16_t queues;
	uint16_t depth;
	uint16_t state; /* enum ublk_state */
	uint16_t pad0;
	uint32_t io_bytes_max;
	uint32_t id;
	int32_t pid;
	uint32_t pad1;
	uint64_t flags;
	uint64_t server_flags; /* ours alone: see ublk_shape.h */
	uint32_t owner_uid;
	uint32_t owner_gid;
	uint64_t reserved[2];
};

static_assert(sizeof(struct ublk_info) == 64, "as the kernel has it");

#define UBLK_ATTR_READ_ONLY	 (1u << 0)
#define UBLK_ATTR_VOLATILE_CACHE (1u << 2)
#define UBLK_ATTR_FUA		 (1u << 3)

struct ublk_param_basic {
	uint32_t attrs;
	uint8_t logical_shift;
	uint8_t physical_shift;
	uint8_t optimal_shift;
	uint8_t minimum_shift;
	uint32_t sectors_max; /* of one request */
	uint32_t chunk_sectors;
	uint64_t device_sectors;
	uint64_t boundary_mask;
};

struct ublk_param_discard {
	uint32_t alignment;
	uint32_t granularity; /* bytes */
	uint32_t discard_sectors_max;
	uint32_t zeroes_sectors_max;
	uint16_t segments_max; /* the driver takes only 1 */
	uint16_t reserved;
};

#define UBLK_PARAM_BASIC   (1u << 0)
#define UBLK_PARAM_DISCARD (1u << 1)

struct ublk_params {
	uint32_t len_bytes; /* of this struct as the server knows it */
	uint32_t types;
	struct ublk_param_basic basic;
	struct ublk_param_discard discard;
	uint8_t pad[4];
};

static_assert(sizeof(struct ublk_param_basic) == 32, "as the kernel has it");
static_assert(sizeof(struct ublk_param_discard) == 20, "as the kernel has it");

/* Travels in the command area of an entry of 64 bytes, on /dev/ublkcN. */
struct ublk_io_cmd {
	uint16_t queue;
	uint16_t tag;
	int32_t result; /* of a commit: bytes or a negative errno */
	uint64_t addr; /* of the tag's buffer */
};

static_assert(sizeof(struct ublk_io_cmd) == 16, "as the kernel has it");

#define UBLK_IO_FETCH		 _IOWR('u', 0x20, struct ublk_io_cmd)
#define UBLK_IO_COMMIT_AND_FETCH _IOWR('u', 0x21, struct ublk_io_cmd)

/* What a request is, in memory that the driver writes and the server maps: one array a queue. */
struct ublk_io_desc {
	uint32_t op_flags; /* the low 8 bits are the operation */
	uint32_t sectors;
	uint64_t start_sector;
	uint64_t addr;
};

static_assert(sizeof(struct ublk_io_desc) == 24, "as the kernel has it");

#define UBLK_OP_MASK		 0xffu
#define UBLK_OP_READ		 0u
#define UBLK_OP_WRITE		 1u
#define UBLK_OP_FLUSH		 2u
#define UBLK_OP_DISCARD		 3u
#define UBLK_OP_WRITE_ZEROES	 5u
#define UBLK_IO_F_FUA		 (1u << 13)
#define UBLK_IO_F_NOUNMAP	 (1u << 15)
#define UBLK_IO_F_NOT_REGISTERED (1u << 17) /* its payload, though that was asked for */

/* With UBLK_F_AUTO_BUF_REG a fetch's entry carries in its addr which buffer of the ring the payload
 * becomes (the low 16 bits); with this bit the request comes also where that fails. */
#define UBLK_REGISTER_OR_GO_ON (1ull << 16)

/* With UBLK_F_USER_COPY: where in /dev/ublkcN a tag's payload can be read or written. */
#define UBLK_COPY_OFFSET      0x80000000ull
#define UBLK_COPY_TAG_SHIFT   25
#define UBLK_COPY_QUEUE_SHIFT 41

/* What a fetch completes with: a request has come, or none will come any more. */
#define UBLK_RES_REQUEST 0
#define UBLK_RES_GONE	 (-ENODEV)

#endif
