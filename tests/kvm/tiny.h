/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Guests of a few bytes: real machines on /dev/kvm, whatever kind of KVM that is. They start in
 * 64-bit mode at TINY_CODE, in TINY_MEMORY bytes of memory.
 */
#ifndef TESTS_KVM_TINY_H
#define TESTS_KVM_TINY_H

#include <poll.h>
#include <sys/mman.h>

#include "machine/kvm/vcpu.h"
#include "machine/kvm/vm.h"
#include "machine/x86/cpuid.h"
#include "machine/x86/registers.h"
#include "test.h"

#define TINY_CODE   0x2000
#define TINY_MEMORY 0x10000
/* Long enough for an emulating KVM on a busy host. */
#define TINY_WAIT_MS 60000

struct tiny {
	struct kvm_vm vm;
	struct bus ports, mmio;
	struct x86_cpuid *cpuid;
	struct vcpus *vcpus;
	uint8_t *memory;
};

static inline int tiny_set_up(void *arg, unsigned index, int fd, struct err *err)
{
	struct tiny *t = arg;
	int r = x86_cpuid_apply(t->cpuid, index, fd, err);

	return r < 0 ? r : x86_enter_long_mode(fd, TINY_CODE, index, err);
}

/* A machine that has not begun to run; the test fills the buses first. Skips without KVM. */
static inline void tiny_init(struct tiny *t, const void *code, size_t n)
{
	int dev = -1;

	*t = (struct tiny){.vm = KVM_VM_INIT};
	if (kvm_open("/dev/kvm", &dev, NULL) < 0)
		skip();
	assert_int_equal(kvm_vm_init(&t->vm, dev, NULL), 0);
	t->memory =
		mmap(NULL, TINY_MEMORY, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_ptr_not_equal(t->memory, MAP_FAILED);
	x86_write_tables(t->memory);
	memcpy(t->memory + TINY_CODE, code, n);
	assert_int_equal(kvm_vm_add_memory(&t->vm, 0, TINY_MEMORY, t->memory, false, NULL), 0);
}

static inline void tiny_create(struct tiny *t, unsigned cpus)
{
	const struct vcpus_params p = {
		.vm = &t->vm,
		.ports = &t->ports,
		.mmio = &t->mmio,
		.set_up = tiny_set_up,
		.arg = t,
	};
	struct err err = ERR_INIT;

	assert_int_equal(x86_cpuid_new(&t->cpuid, t->vm.dev, cpus, &err), 0);
	if (vcpus_new(&t->vcpus, cpus, &err) < 0 || vcpus_create(t->vcpus, &p, &err) < 0)
		fail_msg("%s", err.msg);
}

static inline bool tiny_ended(struct tiny *t, int timeout_ms)
{
	struct pollfd p = {.fd = vcpus_end_fd(t->vcpus), .events = POLLIN};

	return poll(&p, 1, timeout_ms) == 1;
}

/* Run it to its end. */
static inline struct vcpus_end tiny_run(struct tiny *t)
{
	vcpus_resume(t->vcpus);
	assert_true(tiny_ended(t, TINY_WAIT_MS));
	return vcpus_get_end(t->vcpus);
}

static inline void tiny_done(struct tiny *t)
{
	t->vcpus = vcpus_free(t->vcpus);
	t->cpuid = x86_cpuid_free(t->cpuid);
	kvm_vm_done(&t->vm);
	munmap(t->memory, TINY_MEMORY);
}

#define tiny_init_code(t, ...)                                                                     \
	do {                                                                                       \
		static const uint8_t code_[] = {__VA_ARGS__};                                      \
		tiny_init(t, code_, sizeof(code_));                                                \
	} while (0)

#endif
