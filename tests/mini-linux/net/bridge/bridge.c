// SPDX-License-Identifier: Apache-2.0
#include <linux/llc.h>
#include <linux/module.h>
#include <linux/netdevice.h>

static int br_init(void)
{
	stp_proto_register(0x42);
	return register_netdevice("bridge\n");
}

module_init(br_init)

MODULE_LICENSE("Apache-2.0");
MODULE_DESCRIPTION("Ethernet bridge: needs stp, and llc through it");
MODULE_ALIAS("rtnl-link-bridge");
