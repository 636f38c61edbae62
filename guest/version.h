/* SPDX-License-Identifier: Apache-2.0 */
/* What core.ready says about us. */
#ifndef GUEST_VERSION_H
#define GUEST_VERSION_H

#define AGENTD_VERSION MSB_VERSION

#endif
