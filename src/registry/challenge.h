/* SPDX-License-Identifier: Apache-2.0 */
/*
 * WWW-Authenticate (RFC 9110, 11.6.1): how a server wants to be asked. Any thread.
 */
#ifndef REGISTRY_CHALLENGE_H
#define REGISTRY_CHALLENGE_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"

enum challenge_scheme { CHALLENGE_NONE, CHALLENGE_BASIC, CHALLENGE_BEARER, CHALLENGE_OTHER };

/* Empty texts were not said. */
struct challenge {
	enum challenge_scheme scheme;
	char realm[1024], service[512], scope[1024], error[64];
};

/* Challenges in one header; a server that offers more is confused. */
#define CHALLENGES_MAX 8u

/*
 * The best challenge in the header's value @text that we can answer, bearer before basic, into
 * *best if it beats what is there: start with zeroes and offer one header after the other. 1 when
 * it did, 0 when not, ERR_CORRUPT, ERR_LIMIT for what makes no sense.
 */
int challenge_offer(const char *text, struct challenge *best, struct err *err);

#endif
