/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _LINUX_NETDEVICE_H
#define _LINUX_NETDEVICE_H

int register_netdevice(const char *name);

#endif
