/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _LINUX_VIRTIO_H
#define _LINUX_VIRTIO_H

int register_virtio_driver(const char *name);

#endif
