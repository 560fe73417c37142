// SPDX-License-Identifier: Apache-2.0
#include <linux/module.h>
#include <linux/virtio.h>

int register_virtio_driver(const char *name)
{
	printk(name);
	return 0;
}
EXPORT_SYMBOL(register_virtio_driver);

MODULE_LICENSE("Apache-2.0");
MODULE_DESCRIPTION("Virtio bus: needed by every virtio driver");
