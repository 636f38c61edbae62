/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How long it takes from the start of msb-vm to the guest's first instruction.
 *
 *	start_bench RUNS MSB_VM KERNEL AGENTD DIR [MIB [CPUS [JAIL]]]
 *
 * Needs nothing of the guest, so it can be run on a KVM that only emulates. Prints the median of
 * each part, in microseconds. DIR is a scratch folder.
 *
 * The end is timed, too: of a machine that is killed after LIFE_US, or, with GUEST_ENDS in the
 * environment, of one that resets itself then. Its kernel, which takes KERNEL's place, does nothing
 * but read the time stamp counter until so much of it has passed: so its last instruction comes
 * LIFE_US after its first, and what the host needs more than that for the first counts as the
 * end's.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "base/loop.h"
#include "base/proc.h"
#include "base/str.h"
#include "machine/vm_config.h"
#include "machine/x86/tsc.h"
#include "tiny_kernel.h"

enum { RUNS_MAX = 1000, PARTS_MAX = 32, LIFE_US = 100000 };

struct part {
	char name[48];
	uint64_t us[RUNS_MAX];
	unsigned n;
};

static struct part parts[PARTS_MAX];
static unsigned nparts;
static uint64_t last_entry; /* into the guest, by now_ns() */

static void add(const char *name, uint64_t us)
{
	struct part *p = parts;

	while (p < parts + nparts && strcmp(p->name, name) != 0)
		p++;
	if (p == parts + PARTS_MAX)
		return;
	if (p == parts + nparts) {
		snprintf(p->name, sizeof(p->name), "%s", name);
		nparts++;
	}
	p->us[p->n++] = us;
}

/* "start in us: PART US; PART US...; in all US from NS" and "enters the guest at NS". */
static bool take(char *log)
{
	char *line = strstr(log, "start in us: "), *enter = strstr(log, "enters the guest at "),
	     *rest = NULL, *word, *from;

	if (!line || !enter || !(from = strstr(line, " from ")) || !strchr(from, '\n'))
		return false;
	last_entry = strtoull(enter + 20, NULL, 10);
	add("= FIRST ENTRY",
	    (strtoull(enter + 20, NULL, 10) - strtoull(from + 6, NULL, 10)) / 1000);
	*strstr(line, "; in all") = '\0';
	for (word = strtok_r(line + 13, ";", &rest); word; word = strtok_r(NULL, ";", &rest)) {
		char *us = strrchr(word, ' ');

		*us++ = '\0';
		add(word + (*word == ' '), strtoull(us, NULL, 10));
	}
	return true;
}

static int start(const struct vm_config *c, const char *program, struct proc *ret, int *ret_log,
		 struct err *err)
{
	const char *const argv[] = {"msb-vm", NULL};
	cleanup_buf struct buf b = BUF_INIT;
	cleanup_close int config = -1, agent = socket(AF_UNIX, SOCK_STREAM, 0);
	cleanup_close int control = socket(AF_UNIX, SOCK_STREAM, 0);
	int report[2], owner[2], log[2], r;
	struct vm_config now = *c;
	struct sockaddr_un any = {.sun_family = AF_UNIX}; /* a name that nobody else has */

	now.spawned_ns = now_ns();
	vm_config_encode(&now, &b);
	config = io_memfd("vm-config", buf_ptr(&b), buf_size(&b), err);
	if (config < 0 || agent < 0 || control < 0 ||
	    bind(agent, (struct sockaddr *)&any, sizeof(any.sun_family)) < 0 ||
	    bind(control, (struct sockaddr *)&any, sizeof(any.sun_family)) < 0 ||
	    listen(agent, 1) < 0 || listen(control, 1) < 0 || pipe(report) < 0 || pipe(owner) < 0 ||
	    pipe(log) < 0)
		return err_errno(err, "cannot prepare");
	const struct proc_fd fds[] = {
		{config, VM_FD_CONFIG},	  {report[1], VM_FD_STARTUP}, {owner[0], VM_FD_PARENT},
		{agent, VM_FD_LOCK},	  {agent, VM_FD_AGENT},	      {log[1], VM_FD_LOG},
		{control, VM_FD_CONTROL},
	};
	r = proc_spawn(ret,
		       &(struct proc_spec){.path = program,
					   .argv = argv,
					   .fds = fds,
					   .nfds = ARRAY_SIZE(fds),
					   .new_session = true},
		       err);
	close(report[0]);
	close(report[1]);
	close(owner[0]);
	close(owner[1]);
	close(log[1]);
	*ret_log = log[0];
	return r;
}

static int write_ending_kernel(const char *path)
{
	uint8_t code[] = {
		0x0f, 0x31, 0x48, 0xc1, 0xe2, 0x20, 0x48, 0x09, 0xd0,	 /* rax = rdtsc */
		0x48, 0xbb, 0,	  0,	0,    0,    0,	  0,	0,    0, /* mov rbx, span */
		0x48, 0x01, 0xc3,					 /* add rbx, rax */
		0x0f, 0x31, 0x48, 0xc1, 0xe2, 0x20, 0x48, 0x09, 0xd0,	 /* again: rax = rdtsc */
		0x48, 0x39, 0xd8, 0x72, 0xf2,	    /* cmp rax, rbx; jb again */
		0xb0, 0xfe, 0xe6, 0x64, 0xeb, 0xfe, /* mov al, 0xfe; out 0x64, al; jmp . */
	};
	struct tsc_moment began = tsc_now(), now;
	uint64_t span;

	usleep(LIFE_US);
	now = tsc_now();
	span = (now.tsc - began.tsc) * (LIFE_US * 1000ull) / (now.ns - began.ns);
	memcpy(code + 11, &span, sizeof(span));
	return tiny_kernel_write(path, code, sizeof(code));
}

static int by_value(const void *a, const void *b)
{
	const uint64_t *x = a, *y = b;

	return *x < *y ? -1 : *x > *y;
}

int main(int argc, char **argv)
{
	static uint8_t boot[400];
	struct vm_extent extent[2];
	struct vm_disk disk[2];
	struct vm_config c = {
		.name = (char[]){"bench"},
		.engine = (char[]){"kvm"},
		.cmdline = (char[]){""},
		.log_level = (char[]){"debug"},
		.cpus = 1,
		.memory = (uint64_t)512 << 20,
		.bootstrap = {boot, sizeof(boot)},
	};
	struct err err = ERR_INIT;
	char image[512], upper[512], logs[512], kernel[512];
	bool ends = getenv("GUEST_ENDS") != NULL;

	if (argc < 6) {
		fprintf(stderr, "start_bench RUNS MSB_VM KERNEL AGENTD DIR [MIB [CPUS [JAIL]]]\n");
		return 2;
	}
	if (ends) {
		snprintf(kernel, sizeof(kernel), "%s/kernel", argv[5]);
		if (write_ending_kernel(kernel) < 0)
			return perror(kernel), 1;
	}
	c.kernel = ends ? kernel : argv[3];
	c.agentd = argv[4];
	c.dir = argv[5];
	if (argc > 6)
		c.memory = strtoull(argv[6], NULL, 10) << 20;
	if (argc > 7)
		c.cpus = (uint32_t)atoi(argv[7]);
	c.jail = argc > 8 ? argv[8] : NULL;
	snprintf(logs, sizeof(logs), "%s/logs", c.dir);
	snprintf(image, sizeof(image), "%s/image", c.dir);
	snprintf(upper, sizeof(upper), "%s/upper", c.dir);
	mkdir(logs, 0700);
	for (int i = 0; i < 2; i++) {
		int fd = open(i ? upper : image, O_RDWR | O_CREAT, 0600);

		if (fd < 0 || ftruncate(fd, 64 << 20) < 0)
			return perror("disk"), 1;
		close(fd);
		extent[i] = (struct vm_extent){i ? upper : image, 0, 64 << 8};
		disk[i] = (struct vm_disk){.serial = i ? (char[]){"upper"} : (char[]){"image"},
					   .extents = {&extent[i], 1},
					   .read_only = !i};
	}
	c.disks = (struct wire_list){disk, 2};
	for (int i = 0; i < MIN(atoi(argv[1]), RUNS_MAX); i++) {
		char log[16384];
		size_t n = 0;
		ssize_t got;
		struct proc p;
		int fd;

		if (start(&c, argv[2], &p, &fd, &err) < 0) {
			fprintf(stderr, "%s\n", err.msg);
			return 1;
		}
		do {
			got = read(fd, log + n, sizeof(log) - 1 - n);
			n += got > 0 ? (size_t)got : 0;
			log[n] = '\0';
		} while (got > 0 && !take(log));
		if (got <= 0)
			fprintf(stderr, "it ended early:\n%s\n", log);
		/* What the host's KVM does late after a start is over by then, as in any sandbox.
		 */
		if (ends) {
			(void)proc_wait(&p, -1);
			add("= LAST INSTRUCTION TO EXIT", (now_ns() - last_entry) / 1000 - LIFE_US);
		} else {
			uint64_t began;

			usleep(LIFE_US);
			began = now_ns();
			proc_destroy(&p);
			add("= SIGKILL TO EXIT", (now_ns() - began) / 1000);
		}
		close(fd);
	}
	for (struct part *p = parts; p < parts + nparts; p++) {
		qsort(p->us, p->n, sizeof(p->us[0]), by_value);
		printf("%-24s median %6" PRIu64 "  min %6" PRIu64 "  max %6" PRIu64 "  n %u\n",
		       p->name, p->us[p->n / 2], p->us[0], p->us[p->n - 1], p->n);
	}
	return 0;
}
