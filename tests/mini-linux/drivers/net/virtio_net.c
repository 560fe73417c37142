// SPDX-License-Identifier: Apache-2.0
#include <linux/module.h>
#include <linux/netdevice.h>
#include <linux/virtio.h>

static int virtio_net_driver_init(void)
{
	register_virtio_driver("virtio_net\n");
	return register_netdevice("eth0\n");
}

module_init(virtio_net_driver_init)

MODULE_LICENSE("Apache-2.0");
MODULE_DESCRIPTION("Virtio network driver");
MODULE_ALIAS("virtio:d00000001v*");
