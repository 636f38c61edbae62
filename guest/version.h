/* SPDX-License-Identifier: Apache-2.0 */
/* What core.ready says about us; the build gives the real value. */
#ifndef GUEST_VERSION_H
#define GUEST_VERSION_H

#ifndef AGENTD_VERSION
#define AGENTD_VERSION "0.1.0"
#endif

#endif
