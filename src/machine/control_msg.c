/* SPDX-License-Identifier: Apache-2.0 */
#include "machine/control_msg.h"

#include "wire/packet.h"

#define F(S, m, t, ...)                                                                            \
	{                                                                                          \
		.key = #m, .type = t, .offset = offsetof(struct S, m), __VA_ARGS__                 \
	}
#define OPTIONAL(S, m, t)                                                                          \
	F(S, m, t, .flags = WIRE_OPTIONAL | WIRE_SKIP, .has = offsetof(struct S, has_##m))
#define TEXT(S, m) F(S, m, WIRE_TEXT, .flags = WIRE_OPTIONAL | WIRE_SKIP)
#define TABLE(S, fields_)                                                                          \
	{                                                                                          \
		.name = #S, .size = sizeof(struct S), .fields = fields_,                           \
		.nfields = sizeof(fields_) / sizeof((fields_)[0])                                  \
	}

static const char *const op_names[] = {
	[CONTROL_PING] = "ping",     [CONTROL_STATS] = "stats", [CONTROL_PAUSE] = "pause",
	[CONTROL_RESUME] = "resume", [CONTROL_DRAIN] = "drain", [CONTROL_TOUCH] = "touch",
	[CONTROL_LIMITS] = "limits", [CONTROL_CPUS] = "cpus",	[CONTROL_MEMORY] = "memory",
	[CONTROL_DEFAULTS] = "env",  [CONTROL_LEAVE] = "leave", [CONTROL_STAY] = "stay",
	[CONTROL_NET] = "net",	     [CONTROL_PORTS] = "ports", [CONTROL_STATE] = "state",
	[CONTROL_OPS] = NULL,
};

static const struct wire_field request_fields[] = {
	F(control_request, op, WIRE_ENUM, .names = op_names),
	F(control_request, timeout_ns, WIRE_U64, .flags = WIRE_DEFAULT),
	OPTIONAL(control_request, max_duration_ns, WIRE_U64),
	OPTIONAL(control_request, idle_timeout_ns, WIRE_U64),
	F(control_request, cpus, WIRE_U32, .flags = WIRE_DEFAULT),
	F(control_request, memory, WIRE_U64, .flags = WIRE_DEFAULT),
	F(control_request, env, WIRE_TEXTS, .flags = WIRE_DEFAULT | WIRE_SKIP | WIRE_SECRET),
	TEXT(control_request, workdir),
	F(control_request, net, WIRE_STRUCT, .flags = WIRE_OPTIONAL | WIRE_SKIP,
	  .has = offsetof(struct control_request, has_net), .table = &vm_net_table),
	F(control_request, ports_add, WIRE_TEXTS, .flags = WIRE_DEFAULT | WIRE_SKIP),
	F(control_request, ports_rm, WIRE_TEXTS, .flags = WIRE_DEFAULT | WIRE_SKIP),
};
static const struct wire_table request_table = TABLE(control_request, request_fields);

static const struct wire_field stats_fields[] = {
	F(control_stats, paused, WIRE_BOOL),
	F(control_stats, draining, WIRE_BOOL),
	F(control_stats, cpus, WIRE_U32),
	F(control_stats, cpus_max, WIRE_U32),
	F(control_stats, memory, WIRE_U64),
	F(control_stats, memory_max, WIRE_U64),
	F(control_stats, memory_min, WIRE_U64, .flags = WIRE_DEFAULT),
	F(control_stats, uptime_ns, WIRE_U64),
	F(control_stats, idle_ns, WIRE_U64),
	F(control_stats, max_duration_ns, WIRE_U64),
	F(control_stats, idle_timeout_ns, WIRE_U64),
	F(control_stats, vcpu_time_ns, WIRE_U64),
	F(control_stats, memory_resident, WIRE_U64),
	F(control_stats, disk_read_bytes, WIRE_U64),
	F(control_stats, disk_read_ops, WIRE_U64),
	F(control_stats, disk_write_bytes, WIRE_U64),
	F(control_stats, disk_write_ops, WIRE_U64),
	F(control_stats, net_rx_bytes, WIRE_U64),
	F(control_stats, net_rx_packets, WIRE_U64, .flags = WIRE_DEFAULT),
	F(control_stats, net_tx_bytes, WIRE_U64),
	F(control_stats, net_tx_packets, WIRE_U64, .flags = WIRE_DEFAULT),
	F(control_stats, net_flows, WIRE_U64, .flags = WIRE_DEFAULT),
	F(control_stats, net_flows_open, WIRE_U64, .flags = WIRE_DEFAULT),
	F(control_stats, net_flows_denied, WIRE_U64, .flags = WIRE_DEFAULT),
	F(control_stats, net_lookups, WIRE_U64, .flags = WIRE_DEFAULT),
	F(control_stats, net_lookups_denied, WIRE_U64, .flags = WIRE_DEFAULT),
	F(control_stats, clients, WIRE_U32),
	F(control_stats, sessions, WIRE_U32),
	F(control_stats, has_guest, WIRE_BOOL),
	F(control_stats, guest_memory_total, WIRE_U64),
	F(control_stats, guest_memory_available, WIRE_U64),
	F(control_stats, guest_root_total, WIRE_U64),
	F(control_stats, guest_root_free, WIRE_U64),
	F(control_stats, guest_cpus, WIRE_U32),
};
static const struct wire_table stats_table = TABLE(control_stats, stats_fields);
_Static_assert(sizeof(stats_fields) / sizeof(stats_fields[0]) <= WIRE_FIELDS_MAX, "one bit each");

static const struct wire_field answer_fields[] = {
	F(control_answer, code, WIRE_U32),
	TEXT(control_answer, message),
	TEXT(control_answer, hint),
	F(control_answer, elapsed_ns, WIRE_U64, .flags = WIRE_DEFAULT),
	F(control_answer, cpus, WIRE_U32, .flags = WIRE_DEFAULT),
	F(control_answer, memory, WIRE_U64, .flags = WIRE_DEFAULT),
	F(control_answer, clients, WIRE_U32, .flags = WIRE_DEFAULT),
	F(control_answer, stats, WIRE_STRUCT, .flags = WIRE_OPTIONAL | WIRE_SKIP,
	  .has = offsetof(struct control_answer, has_stats), .table = &stats_table),
};
static const struct wire_table answer_table = TABLE(control_answer, answer_fields);

const char *control_op_name(int32_t op)
{
	return op >= 0 && op < CONTROL_OPS ? op_names[op] : "?";
}

void control_request_put(const struct control_request *q, struct buf *b)
{
	packet_put(&request_table, q, b);
}

void control_answer_put(const struct control_answer *a, struct buf *b)
{
	packet_put(&answer_table, a, b);
}

int control_request_take(struct buf *b, struct control_request *ret, struct err *err)
{
	return packet_take(&request_table, CONTROL_REQUEST_MAX, b, ret, err);
}

int control_answer_take(struct buf *b, struct control_answer *ret, struct err *err)
{
	return packet_take(&answer_table, CONTROL_ANSWER_MAX, b, ret, err);
}

void control_request_done(struct control_request *q)
{
	wire_free(&request_table, q);
}

void control_answer_done(struct control_answer *a)
{
	wire_free(&answer_table, a);
}
