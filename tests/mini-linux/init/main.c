// SPDX-License-Identifier: Apache-2.0
#include <linux/module.h>

extern const initcall_t __initcall_start[], __initcall_end[];

/* As __FILE__ is compiled in, the path by which the compiler was given this file can be seen in vmlinux. */
const char built_from[] = __FILE__;

void start_kernel(void)
{
	const initcall_t *call;

	printk(linux_banner);
	for (call = __initcall_start; call < __initcall_end; call++)
		(*call)();
}
