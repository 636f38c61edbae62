/* SPDX-License-Identifier: Apache-2.0 */
/* Processors saved, and brought back to life in another machine. */
#include "tiny.h"

#include <errno.h>
#include <linux/kvm.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/loop.h"
#include "machine/x86/state.h"

#define CPUS 2
/* inc rbx; mov [0x3000 + rsi * 8], rbx; jmp back: each vCPU counts, in a register. */
#define COUNTER 0x48, 0xff, 0xc3, 0x48, 0x89, 0x1c, 0xf5, 0x00, 0x30, 0x00, 0x00, 0xeb, 0xf3

struct saved {
	struct x86_vm_state vm;
	struct x86_vcpu_state vcpu[CPUS];
	uint8_t memory[TINY_MEMORY];
};

static uint64_t count(const struct tiny *t, unsigned cpu)
{
	return __atomic_load_n((uint64_t *)(t->memory + 0x3000) + cpu, __ATOMIC_SEQ_CST);
}

static void wait_until_above(const struct tiny *t, unsigned cpu, uint64_t n)
{
	uint64_t until = now_ns() + (uint64_t)TINY_WAIT_MS * 1000000;

	while (count(t, cpu) <= n) {
		assert_true(now_ns() < until);
		usleep(1000);
	}
}

static void begin(struct tiny *t, bool irqchip)
{
	tiny_init_code(t, COUNTER);
	if (irqchip)
		assert_int_equal(kvm_call(t->vm.fd, KVM_CREATE_IRQCHIP, NULL), 0);
	tiny_create(t, CPUS);
}

static void save(struct tiny *t, bool irqchip, struct saved *s)
{
	struct err err = ERR_INIT;

	for (unsigned i = 0; i < CPUS; i++) {
		if (x86_vcpu_save(t->vm.dev, vcpus_fd(t->vcpus, i), irqchip, &s->vcpu[i], &err) < 0)
			fail_msg("%s", err.msg);
	}
	if (x86_vm_save(t->vm.fd, irqchip, &s->vm, &err) < 0)
		fail_msg("%s", err.msg);
	memcpy(s->memory, t->memory, TINY_MEMORY);
}

static void restore(struct tiny *t, const struct saved *s)
{
	struct err err = ERR_INIT;

	memcpy(t->memory, s->memory, TINY_MEMORY);
	if (x86_vm_restore(t->vm.fd, &s->vm, &err) < 0)
		fail_msg("%s", err.msg);
	for (unsigned i = 0; i < CPUS; i++) {
		if (x86_vcpu_restore(vcpus_fd(t->vcpus, i), &s->vcpu[i], &err) < 0)
			fail_msg("%s", err.msg);
	}
}

/* Saved, destroyed, restored, three times: counting goes on where it was, never from zero. */
static void go_on_counting(bool irqchip)
{
	struct saved *s = calloc(1, sizeof(*s)), *again = calloc(1, sizeof(*again));
	uint64_t at[CPUS] = {0};
	struct tiny t;

	begin(&t, irqchip);
	for (int round = 0; round < 3; round++) {
		struct kvm_clock_data clock;

		vcpus_resume(t.vcpus);
		for (unsigned i = 0; i < CPUS; i++) {
			/* With interrupt controllers only the first runs: nobody starts the others.
			 */
			if (i == 0 || !irqchip)
				wait_until_above(&t, i, at[i]);
		}
		vcpus_pause(t.vcpus);
		save(&t, irqchip, s);
		for (unsigned i = 0; i < CPUS; i++) {
			/* The register may be one ahead of what was written. */
			assert_in_range(s->vcpu[i].regs.rbx, at[i], at[i] + (1u << 31));
			at[i] = count(&t, i);
		}
		tiny_done(&t);
		begin(&t, irqchip);
		restore(&t, s);
		save(&t, irqchip, again);
		for (unsigned i = 0; i < CPUS; i++) {
			assert_memory_equal(&again->vcpu[i].regs, &s->vcpu[i].regs,
					    sizeof(s->vcpu[i].regs));
			assert_memory_equal(&again->vcpu[i].sregs, &s->vcpu[i].sregs,
					    sizeof(s->vcpu[i].sregs));
			assert_int_equal(again->vcpu[i].nmsrs, s->vcpu[i].nmsrs);
			assert_int_equal(again->vcpu[i].mp.mp_state, s->vcpu[i].mp.mp_state);
		}
		assert_int_equal(kvm_call(t.vm.fd, KVM_GET_CLOCK, &clock), 0);
		assert_true(clock.clock >= s->vm.clock.clock);
	}
	vcpus_resume(t.vcpus);
	wait_until_above(&t, 0, at[0]);
	tiny_done(&t);
	free(s);
	free(again);
}

static void test_counting_goes_on(void **state)
{
	(void)state;
	go_on_counting(false);
}

static void test_with_interrupt_controllers(void **state)
{
	(void)state;
	go_on_counting(true);
}

static void test_refusals(void **state)
{
	struct saved *s = calloc(1, sizeof(*s));
	struct err err = ERR_INIT;
	struct tiny t;

	(void)state;
	begin(&t, false);
	save(&t, false, s);
	s->vcpu[0].version++;
	s->vm.version++;
	assert_int_equal(x86_vcpu_restore(vcpus_fd(t.vcpus, 0), &s->vcpu[0], &err),
			 -ERR_UNSUPPORTED);
	assert_non_null(strstr(err.msg, "version 2"));
	assert_int_equal(x86_vm_restore(t.vm.fd, &s->vm, &err), -ERR_UNSUPPORTED);
	s->vcpu[0].version--;
	s->vm.version--;
	s->vcpu[0].nmsrs = X86_STATE_MSRS_MAX + 1;
	assert_int_equal(x86_vcpu_restore(vcpus_fd(t.vcpus, 0), &s->vcpu[0], NULL),
			 -ERR_UNSUPPORTED);
	s->vm.nchips = X86_STATE_CHIPS + 1;
	assert_int_equal(x86_vm_restore(t.vm.fd, &s->vm, NULL), -ERR_UNSUPPORTED);
	/* A register that no processor has. */
	s->vcpu[0].nmsrs = 1;
	s->vcpu[0].msrs[0] = (struct kvm_msr_entry){.index = 0x12345678, .data = 1};
	assert_int_equal(x86_vcpu_restore(vcpus_fd(t.vcpus, 0), &s->vcpu[0], &err),
			 -ERR_UNSUPPORTED);
	assert_non_null(strstr(err.msg, "0x12345678"));
	/* Saving what is no vCPU. */
	assert_true(x86_vcpu_save(t.vm.dev, t.vm.fd, false, &s->vcpu[0], &err) < 0);
	assert_true(x86_vm_save(t.vm.dev, false, &s->vm, &err) < 0);
	tiny_done(&t);
	free(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_counting_goes_on),
		cmocka_unit_test(test_with_interrupt_controllers),
		cmocka_unit_test(test_refusals),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
