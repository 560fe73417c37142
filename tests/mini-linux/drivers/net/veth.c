// SPDX-License-Identifier: Apache-2.0
#include <linux/module.h>
#include <linux/netdevice.h>

static int veth_init(void)
{
	return register_netdevice("veth0\n") + register_netdevice("veth1\n");
}

module_init(veth_init)

MODULE_LICENSE("Apache-2.0");
MODULE_DESCRIPTION("Virtual ethernet pair");
MODULE_ALIAS("rtnl-link-veth");
