/* SPDX-License-Identifier: Apache-2.0 */
/* msb metrics: what sandboxes use, once or again and again. */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/loop.h"
#include "base/str.h"
#include "cli/cli.h"
#include "cli/project.h"
#include "sandbox/control_client.h"
#include "sandbox/record.h"
#include "sandbox/sandbox_dir.h"
#include "sandbox/upper.h"
#include "store/store.h"

#define MS UINT64_C(1000000)
/* Between two samples when there is only one answer to give. */
#define POINT_INTERVAL (200 * MS)
#define INTERVAL_MIN   (100 * MS)

/* A machine that says nothing for so many intervals has stalled. */
enum { STALLED_AFTER = 3, ASK_MS_MIN = 3000 };

enum sort { BY_NAME, BY_CPU, BY_MEM };

struct metrics_args {
	bool json, watch, follow, all, total;
	uint64_t interval_ns;
	enum sort sort;
};

/* One sandbox at one moment, or the sum of many. */
struct sample {
	char *name;	   /* NULL: a sum */
	size_t count;	   /* ...of so many */
	const char *state; /* static */
	bool there;	   /* its machine answered: what follows is known */
	bool has_cpu;
	uint64_t at; /* now_ns() */
	double cpu;  /* percent of one CPU, since the sample before */
	struct control_stats s;
	uint64_t memory; /* in use in the guest, as far as it says */
	uint64_t upper_allocated;
};

struct samples {
	struct sample *v;
	size_t n;
};

static void samples_done(struct samples *l)
{
	for (size_t i = 0; i < l->n; i++)
		free(l->v[i].name);
	free(l->v);
	*l = (struct samples){0};
}

static int set_interval(const struct opt *o, void *target, const char *value, struct err *err)
{
	struct metrics_args *a = target;
	int r = opt_set_timeout(o, target, value, err);

	if (r < 0)
		return r;
	if (a->interval_ns < INTERVAL_MIN)
		return err_set(err, ERR_USAGE, "an interval of %s is too short: at least 100ms",
			       value);
	return 0;
}

static int set_sort(const struct opt *o, void *target, const char *value, struct err *err)
{
	static const char *const names[] = {[BY_NAME] = "name", [BY_CPU] = "cpu", [BY_MEM] = "mem"};

	(void)o;
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		if (str_eq(value, names[i])) {
			((struct metrics_args *)target)->sort = (enum sort)i;
			return 0;
		}
	}
	return err_set(err, ERR_USAGE, "cannot sort by \"%s\": it is name, cpu or mem", value);
}

#define ARGS(field) offsetof(struct metrics_args, field)

static const struct opt metrics_opts[] = {
	{'w', "watch", NULL, "Show them again and again, in place", opt_set_flag, ARGS(watch), 0},
	{'f', "follow", NULL, "Show them again and again, one after the other", opt_set_flag,
	 ARGS(follow), 0},
	{0, "interval", "TIME", "How often [1s]; at least 100ms", set_interval, ARGS(interval_ns),
	 0},
	{'a', "all", NULL, "Those that do not run as well", opt_set_flag, ARGS(all), 0},
	{'t', "total", NULL, "Only the sum of all that run", opt_set_flag, ARGS(total), 0},
	{0, "sort", "name|cpu|mem", "The order [name]", set_sort, 0, 0},
	{0, "format", "json|table", "How to show them [table]; with --follow a line each",
	 opt_set_format, ARGS(json), 0},
};

/* ---- samples ---- */

static uint64_t allocated(struct store *s, const char *name)
{
	static const char *const files[] = {UPPER_FILE, "overlay.qcow2"};
	cleanup_close int dir = sandbox_dir_open(s, name, NULL);
	uint64_t sum = 0;
	struct stat st;

	for (size_t i = 0; dir >= 0 && i < ARRAY_SIZE(files); i++) {
		if (fstatat(dir, files[i], &st, AT_SYMLINK_NOFOLLOW) == 0)
			sum += (uint64_t)st.st_blocks * 512;
	}
	return sum;
}

static const struct sample *find(const struct samples *l, const char *name)
{
	for (size_t i = 0; l && i < l->n; i++) {
		if (str_eq(l->v[i].name, name))
			return &l->v[i];
	}
	return NULL;
}

static void take(struct store *s, const struct sandbox_entry *e, const struct metrics_args *a,
		 const struct sample *before, struct sample *ret)
{
	const struct control_request q = {.op = CONTROL_STATS};
	int patience = (int)MIN(a->interval_ns / MS * STALLED_AFTER, (uint64_t)600000);
	cleanup_answer struct control_answer answer = {0};
	cleanup_close int fd = -1;

	ret->state = "exited";
	if (!e->running)
		return;
	fd = control_connect(s, ret->name, NULL);
	ret->state = fd == -ENOTCONN ? "exited" : fd < 0 ? "starting" : "stalled";
	if (fd < 0 || control_ask(fd, &q, MAX(patience, (int)ASK_MS_MIN), &answer, NULL) < 0 ||
	    !answer.has_stats)
		return;
	ret->there = true;
	ret->at = now_ns();
	ret->s = answer.stats;
	ret->state = ret->s.paused	? "paused"
		     : ret->s.draining	? "draining"
		     : ret->s.uptime_ns ? "running"
					: "starting";
	ret->memory = ret->s.memory_resident;
	if (ret->s.has_guest && ret->s.guest_memory_total >= ret->s.guest_memory_available)
		ret->memory = ret->s.guest_memory_total - ret->s.guest_memory_available;
	ret->upper_allocated = allocated(s, ret->name);
	/* A machine of that name that is younger than the last look is another one. */
	if (before && before->there && ret->at > before->at &&
	    ret->s.uptime_ns >= before->s.uptime_ns &&
	    ret->s.vcpu_time_ns >= before->s.vcpu_time_ns) {
		ret->has_cpu = true;
		ret->cpu = (double)(ret->s.vcpu_time_ns - before->s.vcpu_time_ns) * 100 /
			   (double)(ret->at - before->at);
	}
}

static int compare(const void *a, const void *b, void *arg)
{
	const struct sample *x = a, *y = b;
	enum sort sort = *(const enum sort *)arg;

	/* The largest first. */
	if (sort == BY_CPU && x->cpu != y->cpu)
		return x->cpu < y->cpu ? 1 : -1;
	if (sort == BY_MEM && x->memory != y->memory)
		return x->memory < y->memory ? 1 : -1;
	return strcmp(x->name, y->name);
}

static int take_all(struct store *s, const char *name, const struct metrics_args *a,
		    const struct samples *before, struct samples *ret, struct err *err)
{
	cleanup_sandbox_list struct sandbox_list l = {0};
	enum sort sort = a->sort;
	int r = sandbox_dir_list(s, name, &l, err);

	if (r < 0)
		return r;
	ret->v = calloc(l.count + 1, sizeof(*ret->v));
	if (!ret->v)
		return err_set(err, ENOMEM, "out of memory");
	for (size_t i = 0; i < l.count; i++) {
		const struct sandbox_entry *e = &l.items[i];
		struct sample *to = &ret->v[ret->n];

		if (!e->running && !a->all && !name)
			continue;
		to->name = strdup(e->record->name);
		if (!to->name)
			return err_set(err, ENOMEM, "out of memory");
		ret->n++;
		take(s, e, a, find(before, to->name), to);
	}
	qsort_r(ret->v, ret->n, sizeof(*ret->v), compare, &sort);
	return 0;
}

static void add(struct sample *sum, const struct sample *m)
{
	struct control_stats *to = &sum->s;
	const struct control_stats *s = &m->s;

	if (!m->there)
		return;
	sum->count++;
	sum->has_cpu |= m->has_cpu;
	sum->cpu += m->cpu;
	sum->memory += m->memory;
	sum->upper_allocated += m->upper_allocated;
#define ADD(field) to->field += s->field
	ADD(cpus);
	ADD(vcpu_time_ns);
	ADD(memory);
	ADD(memory_max);
	ADD(memory_resident);
	ADD(disk_read_bytes);
	ADD(disk_read_ops);
	ADD(disk_write_bytes);
	ADD(disk_write_ops);
	ADD(net_rx_bytes);
	ADD(net_rx_packets);
	ADD(net_tx_bytes);
	ADD(net_tx_packets);
	ADD(net_flows);
	ADD(net_flows_open);
	ADD(net_flows_denied);
	ADD(net_lookups);
	ADD(net_lookups_denied);
	ADD(sessions);
#undef ADD
}

static struct sample sum_of(const struct samples *l)
{
	struct sample sum = {.state = "total", .there = true};

	for (size_t i = 0; i < l->n; i++)
		add(&sum, &l->v[i]);
	return sum;
}

/* ---- for machines ---- */

static json_t *number(bool known, uint64_t v)
{
	return known ? json_integer((json_int_t)v) : json_null();
}

static json_t *to_json(const struct sample *m)
{
	const struct control_stats *s = &m->s;
	json_t *o = json_object();
	char at[32];

#define SET(key, value) json_object_set_new(o, key, value)
#define NUMBER(key, v)	SET(key, number(m->there, v))
#define OF_ONE(key, v)	SET(key, number(m->there && m->name, v))
#define GUEST(key, v)	SET(key, number(m->there && m->name && s->has_guest, v))
	if (m->name)
		SET("name", json_string(m->name));
	else
		SET("sandboxes", json_integer((json_int_t)m->count));
	SET("state", json_string(m->state));
	SET("timestamp", json_string(cli_time(time(NULL), at)));
	NUMBER("cpus", s->cpus);
	SET("cpu_percent", m->has_cpu ? json_real(m->cpu) : json_null());
	NUMBER("vcpu_time_ns", s->vcpu_time_ns);
	NUMBER("memory_bytes", m->memory);
	GUEST("memory_available_bytes", s->guest_memory_available);
	NUMBER("memory_host_resident_bytes", s->memory_resident);
	NUMBER("memory_limit_bytes", s->memory);
	NUMBER("memory_max_bytes", s->memory_max);
	NUMBER("disk_read_bytes", s->disk_read_bytes);
	NUMBER("disk_read_ops", s->disk_read_ops);
	NUMBER("disk_write_bytes", s->disk_write_bytes);
	NUMBER("disk_write_ops", s->disk_write_ops);
	NUMBER("net_rx_bytes", s->net_rx_bytes);
	NUMBER("net_rx_packets", s->net_rx_packets);
	NUMBER("net_tx_bytes", s->net_tx_bytes);
	NUMBER("net_tx_packets", s->net_tx_packets);
	NUMBER("net_flows", s->net_flows);
	NUMBER("net_flows_open", s->net_flows_open);
	NUMBER("net_flows_denied", s->net_flows_denied);
	NUMBER("net_lookups", s->net_lookups);
	NUMBER("net_lookups_denied", s->net_lookups_denied);
	GUEST("upper_used_bytes", s->guest_root_total - s->guest_root_free);
	GUEST("upper_free_bytes", s->guest_root_free);
	NUMBER("upper_host_allocated_bytes", m->upper_allocated);
	OF_ONE("uptime_secs", s->uptime_ns / (1000 * MS));
	NUMBER("sessions", s->sessions);
	OF_ONE("idle_secs", s->idle_ns / (1000 * MS));
#undef SET
#undef NUMBER
#undef OF_ONE
#undef GUEST
	return o;
}

static int print_json(const struct samples *l, const struct metrics_args *a, bool one)
{
	const struct sample sum = sum_of(l);
	json_t *list;

	if (a->total) {
		json_t *o = to_json(&sum);

		if (!a->follow && !a->watch)
			return cli_json(o);
		json_dumpf(o, stdout, JSON_COMPACT);
		putchar('\n');
		json_decref(o);
		return cli_finish();
	}
	if (a->follow || a->watch) {
		for (size_t i = 0; i < l->n; i++) {
			json_t *o = to_json(&l->v[i]);

			json_dumpf(o, stdout, JSON_COMPACT);
			putchar('\n');
			json_decref(o);
		}
		return cli_finish();
	}
	if (one && l->n)
		return cli_json(to_json(&l->v[0]));
	list = json_array();
	for (size_t i = 0; i < l->n; i++)
		json_array_append_new(list, to_json(&l->v[i]));
	return cli_json(list);
}

/* ---- for people ---- */

enum { COLUMNS = 8, CELL = 56 };
struct row {
	char cell[COLUMNS][CELL];
};

static void fill(struct row *to, const struct sample *m)
{
	uint64_t up = m->s.uptime_ns / (1000 * MS);
	char a[24], b[24];

	for (int i = 0; i < COLUMNS; i++)
		strcpy(to->cell[i], "-");
	if (m->name)
		snprintf(to->cell[1], CELL, "%s", m->state);
	else
		snprintf(to->cell[1], CELL, "%zu", m->count);
	if (!m->there)
		return;
	if (m->has_cpu)
		snprintf(to->cell[2], CELL, "%.1f", m->cpu);
	snprintf(to->cell[3], CELL, "%s / %s", str_size(m->memory, a), str_size(m->s.memory, b));
	snprintf(to->cell[4], CELL, "%s", str_size(m->s.memory_resident, a));
	snprintf(to->cell[5], CELL, "%s / %s", str_size(m->s.disk_read_bytes, a),
		 str_size(m->s.disk_write_bytes, b));
	snprintf(to->cell[6], CELL, "%s / %s", str_size(m->s.net_rx_bytes, a),
		 str_size(m->s.net_tx_bytes, b));
	if (up && m->name)
		snprintf(to->cell[7], CELL, "%llu:%02llu:%02llu", (unsigned long long)up / 3600,
			 (unsigned long long)up / 60 % 60, (unsigned long long)up % 60);
}

static int print_table(const struct samples *l, bool total)
{
	static const char *const heads[COLUMNS] = {"NAME",	  "STATE",    "CPU %",
						   "MEM / LIMIT", "HOST MEM", "DISK READ / WRITE",
						   "NET RX / TX", "UPTIME"};
	cleanup_free struct row *rows = calloc(l->n + 1, sizeof(*rows));
	cleanup_free const char **cells = calloc((l->n + 2) * COLUMNS, sizeof(*cells));
	const struct sample sum = sum_of(l);
	size_t n = 0;

	if (!rows || !cells)
		return EXIT_FAILURE;
	for (int c = 0; c < COLUMNS; c++)
		cells[n++] = heads[c];
	for (size_t i = total ? l->n : 0; i <= l->n; i++) {
		const struct sample *m = i < l->n ? &l->v[i] : &sum;

		/* A total of one says nothing. */
		if (m == &sum && l->n < 2 && !total)
			break;
		fill(&rows[i], m);
		cells[n++] = m == &sum ? "TOTAL" : m->name;
		for (int c = 1; c < COLUMNS; c++)
			cells[n++] = rows[i].cell[c];
	}
	cli_table(cells, COLUMNS, n / COLUMNS);
	return cli_finish();
}

/* ---- the verb ---- */

static void wait_until(uint64_t at)
{
	const struct timespec ts = {(time_t)(at / (1000 * MS)), (long)(at % (1000 * MS))};

	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &ts, NULL) == EINTR)
		;
}

static int print(const struct samples *l, const struct metrics_args *a, bool one)
{
	if (a->json)
		return print_json(l, a, one);
	if (a->watch && cli_screen(stdout))
		printf("\033[H\033[J");
	return print_table(l, a->total);
}

static int show(struct store *store, const char *name, const struct metrics_args *a)
{
	bool on = a->watch || a->follow;
	struct samples before = {0};
	uint64_t next = now_ns();
	struct err err = ERR_INIT;
	int code = 0;

	if (a->total && name) {
		err_set(&err, ERR_USAGE, "a total is of all sandboxes, not of one");
		return cli_fail(&err, EXIT_USAGE);
	}
	for (bool first = true; code == 0; first = false) {
		struct samples now = {0};
		bool ended;
		int r = take_all(store, name, a, &before, &now, &err);

		/* What was thrown away with its end has ended. */
		if (r == -ERR_NOT_FOUND && on && !first) {
			samples_done(&now);
			break;
		}
		if (r < 0) {
			samples_done(&now);
			code = cli_fail(&err, EXIT_FAILURE);
			break;
		}
		ended = name && now.n && !now.v[0].there && str_eq(now.v[0].state, "exited");
		if (name && first && ended && !a->all) {
			err_set(&err, ENOTCONN, "sandbox \"%s\" is not running", name);
			err_hint(&err, "start it with `msb start %s`", name);
			code = cli_fail(&err, EXIT_FAILURE);
		} else if (!first || !now.n || ended) {
			code = print(&now, a, name != NULL);
		}
		samples_done(&before);
		before = now;
		if (ended || (!on && (!first || !now.n)))
			break;
		next += first ? POINT_INTERVAL : a->interval_ns;
		/* Behind time, what was missed is missed. */
		next = MAX(next, now_ns());
		wait_until(next);
	}
	samples_done(&before);
	return code;
}

static int metrics(struct cli *cli, int argc, char **argv)
{
	struct metrics_args a = {.interval_ns = 1000 * MS};
	cleanup_words struct opt_words words = {0};
	cleanup_store struct store *store = NULL;
	cleanup_free char *name = NULL;
	struct err err = ERR_INIT;
	int code;

	if (cli_parse_operands(cli, &a, argc, argv, 0, 1, &words, &code))
		return code;
	if (store_open(&store, NULL, &err) < 0)
		return cli_fail(&err, EXIT_FAILURE);
	sandbox_dir_heal(store, true);
	if (words.n && cli_project_name(cli, store, NULL, words.words[0], &name, &err) < 0)
		return cli_fail(&err, EXIT_FAILURE);
	return show(store, name, &a);
}

const struct verb verb_metrics = {
	.name = "metrics",
	.group = "Sandboxes",
	.args = "[OPTIONS] [NAME]",
	.entries = true,
	.summary = "Show what sandboxes use: CPU, memory, disk, network",
	.details = "100 % of CPU is one CPU of the host. Memory is what the guest's kernel says is "
		   "in use, and\n"
		   "what the host holds for it. Looking is no activity: it keeps no sandbox from "
		   "its idle timeout.",
	.examples = "msb metrics\n"
		    "msb metrics -w --sort cpu\n"
		    "msb metrics box -f --interval 5s --format json",
	.opts = metrics_opts,
	.nopts = ARRAY_SIZE(metrics_opts),
	.run = metrics,
};
