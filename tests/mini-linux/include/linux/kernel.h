/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _LINUX_KERNEL_H
#define _LINUX_KERNEL_H

#define __section(name) __attribute__((__section__(name)))
#define __used          __attribute__((__used__))

extern const char linux_banner[];

void start_kernel(void);

/* Without PRINTK nobody says anything, and the callers are the same. */
#ifdef CONFIG_PRINTK
int _printk(const char *text);
#define printk(text) _printk(text)
#else
#define printk(text) ((void)(text))
#endif

#endif
