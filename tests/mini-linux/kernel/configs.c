// SPDX-License-Identifier: Apache-2.0
/* The .config, gzipped, between the marks that extract-ikconfig looks for. */
#include <linux/module.h>

asm(".pushsection .rodata, \"a\"\n"
    ".ascii \"IKCFG_ST\"\n"
    ".globl kernel_config_data\n"
    "kernel_config_data:\n"
    ".incbin \"kernel/config_data.gz\"\n"
    ".globl kernel_config_data_end\n"
    "kernel_config_data_end:\n"
    ".ascii \"IKCFG_ED\"\n"
    ".popsection\n");

#ifdef CONFIG_IKCONFIG_PROC
static int ikconfig_init(void)
{
	printk("/proc/config.gz\n");
	return 0;
}

module_init(ikconfig_init)
#endif

MODULE_LICENSE("Apache-2.0");
MODULE_DESCRIPTION("Echo the kernel .config file");
