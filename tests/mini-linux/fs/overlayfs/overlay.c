// SPDX-License-Identifier: Apache-2.0
#include <linux/module.h>

static int ovl_init(void)
{
	printk("overlay\n");
	return 0;
}

module_init(ovl_init)

MODULE_LICENSE("Apache-2.0");
MODULE_DESCRIPTION("Overlay filesystem");
MODULE_ALIAS("fs-overlay");
