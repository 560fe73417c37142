// SPDX-License-Identifier: Apache-2.0
#include <linux/module.h>
#include <linux/netdevice.h>

static int wg_mod_init(void)
{
	return register_netdevice("wg0\n");
}

module_init(wg_mod_init)

MODULE_LICENSE("Apache-2.0");
MODULE_DESCRIPTION("WireGuard secure network tunnel");
MODULE_ALIAS("rtnl-link-wireguard");
