/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A plugin of QEMU's software CPU: how many instructions each CPU has executed, at any time, as
 * 64-bit numbers in the file that out=PATH names.
 *
 * It adds up blocks, so one that a fault cuts short counts in full. The counter of -icount agrees
 * for one CPU; for each further one it is too high by what was left of the time until the next
 * timer when that CPU got its INIT: resetting a CPU clears what it may still execute, and what it
 * may no longer execute is taken for executed.
 */
#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define API __attribute__((visibility("default")))

/* Of QEMU's qemu-plugin.h, which no package brings. */
struct qemu_plugin_tb;
enum qemu_plugin_cb_flags { QEMU_PLUGIN_CB_NO_REGS };
extern void qemu_plugin_register_vcpu_tb_trans_cb(uint64_t id,
						  void (*fn)(uint64_t id,
							     struct qemu_plugin_tb *tb));
extern void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *tb,
						 void (*fn)(unsigned int cpu, void *arg),
						 enum qemu_plugin_cb_flags flags, void *arg);
extern size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *tb);

API int qemu_plugin_version = 1;
API int qemu_plugin_install(uint64_t id, const void *info, int argc, char **argv);

enum { CPUS = 64 };
static uint64_t *executed;

static void on_block(unsigned int cpu, void *arg)
{
	executed[cpu % CPUS] += (uintptr_t)arg;
}

static void on_translation(uint64_t id, struct qemu_plugin_tb *tb)
{
	(void)id;
	qemu_plugin_register_vcpu_tb_exec_cb(tb, on_block, QEMU_PLUGIN_CB_NO_REGS,
					     (void *)(uintptr_t)qemu_plugin_tb_n_insns(tb));
}

int qemu_plugin_install(uint64_t id, const void *info, int argc, char **argv)
{
	const size_t size = CPUS * sizeof(*executed);
	int fd;

	(void)info;
	if (argc != 1 || strncmp(argv[0], "out=", 4) != 0)
		return -1;
	fd = open(argv[0] + 4, O_RDWR | O_CREAT | O_TRUNC, 0600);
	if (fd < 0 || ftruncate(fd, (off_t)size) < 0)
		return -1;
	executed = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	if (executed == MAP_FAILED)
		return -1;
	qemu_plugin_register_vcpu_tb_trans_cb(id, on_translation);
	return 0;
}
