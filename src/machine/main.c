/* SPDX-License-Identifier: Apache-2.0 */
/*
 * msb-vm: one virtual machine.
 *
 * Started by msb with the descriptors of enum vm_fd; not for people. Its argument, the sandbox's
 * directory, is only for who looks at a list of processes. Exits 0 when the machine ended as it was
 * asked to.
 *
 * `msb-vm --try-jail ENGINE DIR KERNEL` makes no machine: it builds the walls around one, says what
 * holds, removes DIR and ends.
 */
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "base/log.h"
#include "base/str.h"
#include "machine/jail/jail.h"
#include "machine/machine.h"

/* The boot message is at most a frame of 4 MiB; disks and paths are little beside it. */
#define CONFIG_MAX ((size_t)8 << 20)

static int read_config(struct vm_config *ret, struct err *err)
{
	cleanup_buf struct buf b = BUF_INIT;
	int r = io_read_fd(VM_FD_CONFIG, CONFIG_MAX, &b);

	if (r < 0) {
		err_set(err, r, "cannot read the configuration: %s", err_name(r));
		return err_hint(err, "msb-vm is started by msb, not by hand");
	}
	return vm_config_decode(buf_ptr(&b), buf_size(&b), ret, err);
}

static void block_signals(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
}

static int try_jail(char **words)
{
	const struct jail_params p = {
		.on = true,
		.engine = words[0],
		.dir = words[1],
		.kernel = words[2],
		.remove_dir = true,
	};
	cleanup_buf struct buf report = BUF_INIT;
	struct err err = ERR_INIT;

	if (jail_try(&p, &report, &err) < 0) {
		(void)io_write_full(STDERR_FILENO, err.msg, strlen(err.msg));
		return 1;
	}
	return io_write_full(STDOUT_FILENO, buf_ptr(&report), buf_size(&report)) < 0;
}

int main(int argc, char **argv)
{
	struct vm_config config = {0};
	struct machine_start start = {
		.config = &config,
		.startup_fd = VM_FD_STARTUP,
		.agent_fd = VM_FD_AGENT,
		.control_fd = VM_FD_CONTROL,
	};
	struct err err = ERR_INIT;
	enum log_level level;
	int r;

	if (argc == 5 && str_eq(argv[1], "--try-jail"))
		return try_jail(argv + 2);
	block_signals();
	/*
	 * With an arena a thread, the C library opens files of /proc and /sys to see how many there
	 * may be and how they shrink, whenever it likes: the jail takes that for an attack.
	 */
	mallopt(M_ARENA_MAX, 1);
	for (int fd = VM_FD_CONFIG; fd <= VM_FD_CONTROL; fd++)
		(void)io_set_cloexec(fd, true);
	r = read_config(&config, &err);
	close(VM_FD_CONFIG);
	if (r < 0) {
		fprintf(stderr, "msb-vm: %s\n", err.msg);
		if (err.hint[0])
			fprintf(stderr, "  %s\n", err.hint);
		return 2;
	}
	/* By this, and no number written down, others find the process of a sandbox. */
	(void)io_own(VM_FD_LOCK);
	if (log_level_parse(config.log_level, &level) < 0)
		level = LOG_INFO;
	log_open(VM_FD_LOG, level, NULL);
	start.parent_fd = config.owned ? VM_FD_PARENT : -1;
	r = machine_run(&start, &err);
	vm_config_done(&config);
	return r < 0 ? 1 : 0;
}
