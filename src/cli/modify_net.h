/* SPDX-License-Identifier: Apache-2.0 */
/* What msb modify does to the network in a sandbox's record. */
#ifndef CLI_MODIFY_NET_H
#define CLI_MODIFY_NET_H

#include "base/err.h"
#include "sandbox/spec.h"

/* Take a value as the option of that name takes it for a new sandbox. */
int modify_net_set(struct sandbox_spec *wishes, const char *opt, const char *value,
		   struct err *err);
/* Put what is wished, and not to be there any more, into @to. */
int modify_net_apply(struct sandbox_spec *to, const struct sandbox_spec *wishes,
		     const struct strv *rule_rm, const struct strv *port_rm, struct err *err);

#endif
