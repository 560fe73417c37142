/* SPDX-License-Identifier: Apache-2.0 */
/* What a module must have in common with the kernel that loads it. (The kernel's own ends in a space, too.) */
#ifndef _LINUX_VERMAGIC_H
#define _LINUX_VERMAGIC_H

#include <generated/utsrelease.h>

#define VERMAGIC_STRING UTS_RELEASE " SMP mod_unload "

#endif
