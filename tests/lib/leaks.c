/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * leaks - what LeakSanitizer looks at in a unit test program
 *
 * Criterion runs each test in a process of its own, which boxfort starts with BXFI_MAP in its
 * environment. Leaks count there. Criterion's own process now and then leaks an event of its loop
 * on a busy machine (48 bytes of libcriterion), which is not ours and is not looked at.
 *
 * Criterion takes no notice of how a test's process ends, so tests/run.py looks for
 * LeakSanitizer's words in the log: a leak fails the suite.
 */
#include <stdlib.h>

int __lsan_is_turned_off(void);

int __lsan_is_turned_off(void)
{
	return getenv("BXFI_MAP") == NULL;
}
