// SPDX-License-Identifier: Apache-2.0
#include <linux/module.h>

/* Where a debugger would look for it. */
char log_buf[4096];
static unsigned int log_end;

int _printk(const char *text)
{
	while (*text)
		log_buf[log_end++ % sizeof(log_buf)] = *text++;
	return 0;
}
EXPORT_SYMBOL(_printk);
