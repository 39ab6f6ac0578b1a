/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * extent - where a run of logical blocks lies: in a run of physical blocks, or nowhere
 */
#ifndef CORE_METADATA_EXTENT_H
#define CORE_METADATA_EXTENT_H

#include <stdbool.h>
#include <stdint.h>

#include "core/base/units.h"

struct extent {
	pbn_t pbn; /* PBN_NONE: hole */
	uint32_t blocks;
	bool maybe_shared;
};

#endif
