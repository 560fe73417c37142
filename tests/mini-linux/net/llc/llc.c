// SPDX-License-Identifier: Apache-2.0
#include <linux/llc.h>
#include <linux/module.h>

int llc_sap_open(int sap)
{
	return sap;
}
EXPORT_SYMBOL(llc_sap_open);

MODULE_LICENSE("Apache-2.0");
MODULE_DESCRIPTION("LLC core: needed by stp and bridge, needs nobody");
