// SPDX-License-Identifier: Apache-2.0
/* CONFIG_MINI_WARN: compiles, and the compiler has something to say. */
#include <linux/module.h>

static int mini_warn_init(void)
{
	int unused_on_purpose;

	return 0;
}

module_init(mini_warn_init)

MODULE_LICENSE("Apache-2.0");
