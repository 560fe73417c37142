// SPDX-License-Identifier: Apache-2.0
#include <linux/module.h>
#include <linux/virtio.h>

static int virtio_blk_init(void)
{
	return register_virtio_driver("virtio_blk\n");
}

module_init(virtio_blk_init)

MODULE_LICENSE("Apache-2.0");
MODULE_DESCRIPTION("Virtio block driver");
MODULE_ALIAS("virtio:d00000002v*");
