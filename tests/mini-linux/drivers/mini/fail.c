// SPDX-License-Identifier: Apache-2.0
/* CONFIG_MINI_FAIL: does not compile, and is not meant to. */
#include <linux/module.h>

static int mini_fail_init(void)
{
	int failed = undeclared_on_purpose;

	return failed;
}

module_init(mini_fail_init)

MODULE_LICENSE("Apache-2.0");
