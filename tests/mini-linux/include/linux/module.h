/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What makes an object a module to depmod and modinfo, and a built-in one known
 * to modules.builtin. KBUILD_MODNAME and KBUILD_MODFILE come from the makefile.
 */
#ifndef _LINUX_MODULE_H
#define _LINUX_MODULE_H

#include <linux/kernel.h>

struct module {
	char name[56];
};

/* "key=value" in .modinfo; in vmlinux many share that section, and "name." tells whose it is. */
#ifdef MODULE
#define __modinfo_prefix
#else
#define __modinfo_prefix KBUILD_MODNAME "."
#endif

#define __unique2(name, line) __mod_##name##line
#define __unique(name, line)  __unique2(name, line)
#define MODULE_INFO(key, text) \
	static const char __unique(key, __LINE__)[] __used __section(".modinfo") __attribute__((aligned(1))) = \
		__modinfo_prefix #key "=" text

#ifdef MODULE
#define MODULE_FILE
#else
#define MODULE_FILE MODULE_INFO(file, KBUILD_MODFILE);
#endif

#define MODULE_LICENSE(text)     MODULE_FILE MODULE_INFO(license, text)
#define MODULE_DESCRIPTION(text) MODULE_INFO(description, text)
#define MODULE_ALIAS(text)       MODULE_INFO(alias, text)

/*
 * An entry of __ksymtab, by whose symbol System.map tells what vmlinux exports,
 * and the name in __ksymtab_strings, by which depmod tells what a module does.
 */
struct kernel_symbol {
	const void *value;
	const char *name;
};

#define EXPORT_SYMBOL(symbol) \
	static const char __kstrtab_##symbol[] __used __section("__ksymtab_strings") __attribute__((aligned(1))) = \
		#symbol; \
	static const struct kernel_symbol __ksymtab_##symbol __used __section("__ksymtab") = \
		{ (const void *)&symbol, __kstrtab_##symbol }

/* Run by start_kernel() where it is built in, by insmod where it is a module. */
typedef int (*initcall_t)(void);

#ifdef MODULE
#define module_init(function) int init_module(void); int init_module(void) { return function(); }
#define module_exit(function) void cleanup_module(void); void cleanup_module(void) { function(); }
#else
#define module_init(function) static const initcall_t __initcall_##function __used __section(".initcall") = function;
#define module_exit(function) static void (*const __exitcall_##function)(void) __attribute__((__unused__)) = function;
#endif

#endif
