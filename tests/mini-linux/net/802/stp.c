// SPDX-License-Identifier: Apache-2.0
#include <linux/llc.h>
#include <linux/module.h>

int stp_proto_register(int proto)
{
	return llc_sap_open(proto);
}
EXPORT_SYMBOL(stp_proto_register);

MODULE_LICENSE("Apache-2.0");
MODULE_DESCRIPTION("Spanning tree: needed by bridge, needs llc");
