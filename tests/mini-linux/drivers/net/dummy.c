// SPDX-License-Identifier: Apache-2.0
#include <linux/module.h>
#include <linux/netdevice.h>

static int dummy_init_module(void)
{
	return register_netdevice("dummy0\n");
}

static void dummy_cleanup_module(void)
{
	printk("dummy0 is gone\n");
}

module_init(dummy_init_module)
module_exit(dummy_cleanup_module)

MODULE_LICENSE("Apache-2.0");
MODULE_DESCRIPTION("Dummy network device");
MODULE_ALIAS("rtnl-link-dummy");
