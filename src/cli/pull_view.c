/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/pull_view.h"

#include <jansson.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/loop.h"
#include "base/str.h"
#include "cli/cli.h"
#include "cli/term.h"

#define SECOND 1000000000ull

enum {
	DRAW_EVERY_MS = 100,
	BAR_MAX = 30,
	LINE_MAX = 160,
};

/* --- Programs --- */

static void json_line(struct pull_view *v, json_t *j)
{
	if (!j)
		return;
	json_dumpf(j, v->f, JSON_COMPACT);
	json_decref(j);
	putc('\n', v->f);
	fflush(v->f);
}

static json_t *layer_event(const struct image_progress *p, const char *event)
{
	return json_pack("{s:s,s:I,s:I,s:s}", "event", event, "layer", (json_int_t)p->layer + 1,
			 "layers", (json_int_t)p->layers, "diff_id", p->text);
}

static void show_json(struct pull_view *v, const struct image_progress *p, struct view_layer *l)
{
	json_t *j;

	switch (p->stage) {
	case IMAGE_STAGE_RESOLVE:
		json_line(v, json_pack("{s:s,s:s}", "event", "resolving", "reference", p->text));
		break;
	case IMAGE_STAGE_NOTE:
		json_line(v, json_pack("{s:s,s:s}", "event", "note", "text", p->text));
		break;
	case IMAGE_STAGE_LAYER:
		if (now_ns() - l->shown < DRAW_EVERY_MS * 1000000ull && p->done < p->total)
			break;
		l->shown = now_ns();
		j = layer_event(p, "downloading");
		json_object_set_new(j, "bytes", json_integer((json_int_t)p->done));
		if (p->total)
			json_object_set_new(j, "total_bytes", json_integer((json_int_t)p->total));
		json_line(v, j);
		break;
	case IMAGE_STAGE_LAYER_DONE:
		json_line(v, layer_event(p, "layer_done"));
		break;
	case IMAGE_STAGE_LAYER_HAVE:
		json_line(v, layer_event(p, "layer_exists"));
		break;
	case IMAGE_STAGE_MERGE:
		json_line(v, json_pack("{s:s}", "event", "merging"));
		break;
	default:
		break;
	}
}

/* --- Logs --- */

static void show_line(struct pull_view *v, const struct image_progress *p, bool first)
{
	char size[24];

	switch (p->stage) {
	case IMAGE_STAGE_RESOLVE:
		fprintf(v->f, "pulling %s\n", p->text);
		break;
	case IMAGE_STAGE_NOTE:
		/* It may quote what a server said. */
		cli_put_clean(v->f, p->text);
		putc('\n', v->f);
		break;
	case IMAGE_STAGE_LAYER:
		if (first)
			fprintf(v->f, "layer %u of %u: %s\n", p->layer + 1, p->layers,
				p->total ? str_size(p->total, size) : "downloading");
		break;
	case IMAGE_STAGE_LAYER_DONE:
		fprintf(v->f, "layer %u of %u: done\n", p->layer + 1, p->layers);
		break;
	case IMAGE_STAGE_LAYER_HAVE:
		fprintf(v->f, "layer %u of %u: is here\n", p->layer + 1, p->layers);
		break;
	default:
		break;
	}
}

/* --- People --- */

static void draw_bar(char *out, size_t size, const struct view_layer *l, unsigned columns)
{
	const uint64_t age = MAX(now_ns() - l->began_ns, 1ull);
	const uint64_t rate = (uint64_t)((double)l->done * SECOND / (double)age);
	char done[24], total[24], speed[24], bar[BAR_MAX + 1] = "", left[24] = "";
	unsigned width = columns > 78 ? MIN(columns - 66, (unsigned)BAR_MAX) : 0;

	if (l->total) {
		unsigned full = (unsigned)(l->done * width / l->total);

		memset(bar, ' ', width);
		memset(bar, '=', MIN(full, width));
		if (full < width)
			bar[full] = '>';
		bar[width] = '\0';
		if (rate && l->done < l->total)
			snprintf(left, sizeof(left), "%llu s left",
				 (unsigned long long)((l->total - l->done) / rate + 1));
	}
	snprintf(out, size, "%s %s%s%s%s%s%s  %s/s  %s", l->id, width && l->total ? "[" : "", bar,
		 width && l->total ? "] " : "", str_size(l->done, done), l->total ? " of " : "",
		 l->total ? str_size(l->total, total) : "", str_size(rate, speed), left);
}

static void draw_layer(const struct pull_view *v, const struct view_layer *l, unsigned columns)
{
	static const char *const words[] = {"waiting", "", "done", "is here"};
	char line[LINE_MAX], size[24];

	if (l->state == VIEW_ACTIVE)
		draw_bar(line, sizeof(line), l, columns);
	else
		snprintf(line, sizeof(line), "%s %s%s%s", l->id[0] ? l->id : "            ",
			 words[l->state], l->state == VIEW_DONE ? ", " : "",
			 l->state == VIEW_DONE ? str_size(l->total, size) : "");
	/* A line that wraps would be two when it is taken back. */
	fprintf(v->f, "\033[K%.*s\n", (int)MIN(columns - 1, (unsigned)sizeof(line)), line);
}

static void erase(struct pull_view *v)
{
	if (v->drawn)
		fprintf(v->f, "\033[%uA\r\033[J", v->drawn);
	v->drawn = 0;
}

static void draw(struct pull_view *v)
{
	unsigned ended = 0;
	uint16_t rows, columns;
	bool all;

	term_size(fileno(v->f), &rows, &columns);
	all = v->count + 2u <= rows;
	if (v->drawn)
		fprintf(v->f, "\033[%uA\r", v->drawn);
	v->drawn = 0;
	for (unsigned i = 0; i < v->count; i++) {
		const struct view_layer *l = &v->layers[i];

		ended += l->state >= VIEW_DONE;
		/* With more layers than lines those are shown at which something happens. */
		if (all || (l->state == VIEW_ACTIVE && v->drawn + 3u <= rows)) {
			draw_layer(v, l, MAX(columns, (uint16_t)20));
			v->drawn++;
		}
	}
	if (!all) {
		fprintf(v->f, "\033[K%u of %u layers\n", ended, v->count);
		v->drawn++;
	}
	fputs("\033[J", v->f);
	fflush(v->f);
	v->drawn_ns = now_ns();
}

static void show_bars(struct pull_view *v, const struct image_progress *p)
{
	if (p->stage == IMAGE_STAGE_RESOLVE || p->stage == IMAGE_STAGE_NOTE) {
		erase(v);
		show_line(v, p, true);
	}
	if (p->stage == IMAGE_STAGE_LAYER && v->drawn &&
	    now_ns() - v->drawn_ns < DRAW_EVERY_MS * 1000000ull)
		return;
	draw(v);
}

void pull_view_end(struct pull_view *v)
{
	if (v->mode == VIEW_BARS) {
		erase(v);
		fflush(v->f);
	}
}

void pull_view_show(void *view, const struct image_progress *p)
{
	struct pull_view *v = view;
	struct view_layer *l = NULL;
	bool first = false;

	if (p->layers && p->layer < p->layers && p->layer < ARRAY_SIZE(v->layers)) {
		const char *hex = strchr(p->text, ':');

		v->count = MIN(p->layers, (unsigned)ARRAY_SIZE(v->layers));
		l = &v->layers[p->layer];
		snprintf(l->id, sizeof(l->id), "%s", hex ? hex + 1 : p->text);
		first = l->state == VIEW_WAITING;
		if (first)
			l->began_ns = now_ns();
		l->state = p->stage == IMAGE_STAGE_LAYER_DONE	? VIEW_DONE
			   : p->stage == IMAGE_STAGE_LAYER_HAVE ? VIEW_HAVE
								: VIEW_ACTIVE;
		l->done = p->done;
		l->total = p->total;
	}
	if (v->mode == VIEW_BARS)
		show_bars(v, p);
	else if (v->mode == VIEW_LINES)
		show_line(v, p, first);
	else if (v->mode == VIEW_JSON)
		show_json(v, p, l);
}
