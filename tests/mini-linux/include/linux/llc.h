/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _LINUX_LLC_H
#define _LINUX_LLC_H

int llc_sap_open(int sap);
int stp_proto_register(int proto);

#endif
