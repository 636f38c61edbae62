/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How far a pull is: a bar per layer on a terminal, plain lines in a log, JSON for programs, or
 * nothing. pull_view_show() is an image_progress_fn with a struct pull_view.
 */
#ifndef CLI_PULL_VIEW_H
#define CLI_PULL_VIEW_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "image/image.h"

enum pull_view_mode { VIEW_NONE, VIEW_LINES, VIEW_BARS, VIEW_JSON };

struct view_layer {
	enum { VIEW_WAITING, VIEW_ACTIVE, VIEW_DONE, VIEW_HAVE } state;
	uint64_t done, total, began_ns, shown;
	char id[13];
};

struct pull_view {
	enum pull_view_mode mode;
	FILE *f;
	struct view_layer layers[IMAGE_LAYERS_MAX];
	unsigned count;
	unsigned drawn; /* lines on the terminal */
	uint64_t drawn_ns;
};

void pull_view_show(void *view, const struct image_progress *p);
/* Take the bars away. */
void pull_view_end(struct pull_view *v);

#endif
