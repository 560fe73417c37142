// SPDX-License-Identifier: Apache-2.0
/*
 * In C, not assembly, so that a host's compiler can stand in for the cross
 * compiler (see arch/arm64/Makefile).
 */
#include <linux/kernel.h>

void _start(void);

void _start(void)
{
	start_kernel();
	for (;;)
		;
}
