/* SPDX-License-Identifier: Apache-2.0 */
/* What store.c and blob.c know of each other. */
#ifndef STORE_STORE_INTERNAL_H
#define STORE_STORE_INTERNAL_H

#include "store/store.h"

struct store {
	char *home; /* canonical */
	int root;
	int dirs[STORE_DIR_COUNT];
	struct sqlite3 *db;
};

/* Delete what dead writers left in tmp/. Best effort: leftovers waste space, nothing else. */
void store_clean_temps(const struct store *s);
/* As store_temp_publish(), directly in the store. */
int store_temp_publish_root(struct store_temp *t, const char *name, struct err *err);
int store_db_error(struct store *s, const char *doing, struct err *err);

#endif
