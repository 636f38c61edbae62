/* SPDX-License-Identifier: Apache-2.0 */
/* vCPU threads, exits and buses, with guests of a few bytes. */
#include "tiny.h"

#include <errno.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/loop.h"

#define HLT	     0xf4
#define LOOP_FOREVER 0xeb, 0xfe /* jmp . */

/* What a device saw, and what it answers. All vCPUs use it. */
static pthread_mutex_t log_lock = PTHREAD_MUTEX_INITIALIZER;

struct log {
	atomic_uint reads, writes;
	uint64_t off;
	uint32_t len;
	uint64_t value, answer;
};

static void log_read(void *arg, uint64_t off, void *p, uint32_t len)
{
	struct log *l = arg;

	pthread_mutex_lock(&log_lock);
	l->off = off;
	l->len = len;
	memcpy(p, &l->answer, len);
	l->reads++;
	pthread_mutex_unlock(&log_lock);
}

static void log_write(void *arg, uint64_t off, const void *p, uint32_t len)
{
	struct log *l = arg;

	pthread_mutex_lock(&log_lock);
	l->off = off;
	l->len = len;
	l->value = 0;
	memcpy(&l->value, p, len);
	l->writes++;
	pthread_mutex_unlock(&log_lock);
}

static void add(struct bus *b, uint64_t base, uint64_t size, struct log *l)
{
	const struct bus_range r = {base, size, log_read, log_write, l};

	assert_int_equal(bus_add(b, &r), 0);
}

/* ---- the bus ---- */

static void test_bus(void **state)
{
	struct log a = {0}, b = {0};
	struct bus bus = {0};
	const struct bus_range bad[] = {
		{0x100, 0, log_read, log_write, &a},
		{UINT64_MAX, 2, log_read, log_write, &a},
	};
	const struct bus_range overlap[] = {
		{0xff, 2, log_read, log_write, &a},
		{0x107, 1, log_read, log_write, &a},
		{0x90, 0x100, log_read, log_write, &a},
		{0x102, 1, log_read, log_write, &a},
	};
	uint64_t v = 0;

	(void)state;
	add(&bus, 0x200, 8, &b);
	add(&bus, 0x100, 8, &a);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(bus_add(&bus, &bad[i]), -EINVAL);
	for (size_t i = 0; i < ARRAY_SIZE(overlap); i++)
		assert_int_equal(bus_add(&bus, &overlap[i]), -EEXIST);
	b.answer = 0x55;
	bus_read(&bus, 0x207, &v, 1);
	assert_int_equal(v, 0x55);
	assert_int_equal(b.off, 7);
	/* Across the end, and where nobody is. */
	bus_read(&bus, 0x207, &v, 2);
	assert_int_equal(v & 0xffff, 0xffff);
	v = 0;
	bus_read(&bus, 0, &v, 8);
	assert_true(v == UINT64_MAX);
	bus_read(&bus, UINT64_MAX, &v, 1);
	bus_write(&bus, 0x108, &v, 1);
	assert_int_equal(a.writes + b.writes, 0);
	bus_write(&bus, 0x100, &v, 8);
	assert_int_equal(a.writes, 1);
	assert_int_equal(b.reads, 1);
	for (unsigned i = 2; i < BUS_RANGES_MAX; i++)
		add(&bus, 0x1000 + i * 16, 8, &a);
	assert_int_equal(bus_add(&bus, &(struct bus_range){0, 1, log_read, log_write, &a}),
			 -ENOSPC);
}

/* ---- exits ---- */

static void test_port(void **state)
{
	struct log l = {.answer = 0x34};
	struct vcpus_end end;
	struct tiny t;

	(void)state;
	tiny_init_code(&t, 0x66, 0xba, 0xf8, 0x03, /* mov dx, 0x3f8 */
		       0xec,			   /* in al, dx */
		       0x04, 0x01,		   /* add al, 1 */
		       0x66, 0xba, 0xf9, 0x03,	   /* mov dx, 0x3f9 */
		       0xee,			   /* out dx, al */
		       HLT);
	add(&t.ports, 0x3f8, 8, &l);
	tiny_create(&t, 1);
	end = tiny_run(&t);
	assert_int_equal(end.kind, VCPUS_HALTED);
	assert_int_equal(l.reads, 1);
	assert_int_equal(l.writes, 1);
	assert_int_equal(l.off, 1);
	assert_int_equal(l.len, 1);
	assert_int_equal(l.value, 0x35);
	tiny_done(&t);
}

static void test_unclaimed_port_reads_ones(void **state)
{
	struct log l = {0};
	struct tiny t;

	(void)state;
	tiny_init_code(&t, 0xe5, 0x70, /* in eax, 0x70 */
		       0xe6, 0x70,     /* out 0x70, al */
		       0xe7, 0x80,     /* out 0x80, eax */
		       HLT);
	add(&t.ports, 0x80, 4, &l);
	tiny_create(&t, 1);
	assert_int_equal(tiny_run(&t).kind, VCPUS_HALTED);
	assert_int_equal(l.value, 0xffffffff);
	assert_int_equal(l.len, 4);
	tiny_done(&t);
}

static void test_string_output(void **state)
{
	struct log l = {0};
	struct tiny t;

	(void)state;
	tiny_init_code(&t, 0xbe, 0x00, 0x20, 0, 0, /* mov esi, 0x2000 */
		       0xb9, 0x05, 0, 0, 0,	   /* mov ecx, 5 */
		       0x66, 0xba, 0x80, 0x00,	   /* mov dx, 0x80 */
		       0xf3, 0x6e,		   /* rep outsb */
		       HLT);
	add(&t.ports, 0x80, 1, &l);
	tiny_create(&t, 1);
	assert_int_equal(tiny_run(&t).kind, VCPUS_HALTED);
	assert_int_equal(l.writes, 5);
	assert_int_equal(l.value, 0); /* the fifth byte of the code */
	tiny_done(&t);
}

static void test_mmio(void **state)
{
	struct log l = {.answer = 0x1122334455667788};
	struct tiny t;

	(void)state;
	tiny_init_code(&t, 0xbb, 0x00, 0x00, 0x10, 0, /* mov ebx, 0x100000 */
		       0x48, 0x8b, 0x03,	      /* mov rax, [rbx] */
		       0x89, 0x43, 0x04,	      /* mov [rbx+4], eax */
		       0x8a, 0x43, 0x10,	      /* mov al, [rbx+16]: nobody there */
		       HLT);
	add(&t.mmio, 0x100000, 16, &l);
	tiny_create(&t, 1);
	assert_int_equal(tiny_run(&t).kind, VCPUS_HALTED);
	assert_int_equal(l.reads, 1);
	assert_int_equal(l.writes, 1);
	assert_int_equal(l.off, 4);
	assert_int_equal(l.len, 4);
	assert_int_equal(l.value, 0x55667788);
	tiny_done(&t);
}

/* A write takes the short way only if width and value fit. */
static void test_ioeventfd(void **state)
{
	cleanup_close int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	const uint32_t one = 1;
	struct log l = {0};
	struct tiny t;
	uint64_t n = 0;

	(void)state;
	tiny_init_code(&t, 0xbb, 0x50, 0x00, 0x10, 0, /* mov ebx, 0x100050 */
		       0xc7, 0x03, 1, 0, 0, 0,	      /* mov dword [rbx], 1: matches */
		       0xc7, 0x03, 2, 0, 0, 0,	      /* mov dword [rbx], 2 */
		       0xc7, 0x03, 1, 0, 0, 0, HLT);  /* and again */
	add(&t.mmio, 0x100000, 0x200, &l);
	assert_int_equal(kvm_vm_ioeventfd(&t.vm, 0x100050, 4, &one, fd, NULL), 0);
	assert_int_equal(kvm_vm_ioeventfd(&t.vm, 0x100050, 4, &one, fd, NULL), -EEXIST);
	tiny_create(&t, 1);
	assert_int_equal(tiny_run(&t).kind, VCPUS_HALTED);
	assert_int_equal(read(fd, &n, sizeof(n)), sizeof(n));
	assert_int_equal(n, 2);
	assert_int_equal(l.writes, 1);
	assert_int_equal(l.value, 2);
	tiny_done(&t);
}

/* What the local APIC of vCPU 0 has pending. */
static bool pending(struct tiny *t, unsigned vector)
{
	struct kvm_lapic_state s;

	assert_int_equal(kvm_call(vcpus_fd(t->vcpus, 0), KVM_GET_LAPIC, &s), 0);
	return s.regs[0x200 + vector / 32 * 16 + vector % 32 / 8] & 1 << vector % 8;
}

static void test_messages_are_interrupts(void **state)
{
	struct kvm_lapic_state s;
	struct tiny t;

	(void)state;
	tiny_init_code(&t, HLT);
	/* To nobody. */
	kvm_vm_signal(&t.vm, 0xfee00000, 0x41);
	assert_int_equal(kvm_vm_local_apics(&t.vm, NULL), 0);
	assert_int_equal(kvm_vm_local_apics(&t.vm, NULL), -EEXIST);
	kvm_vm_signal(&t.vm, 0xfee00000, 0x41);
	tiny_create(&t, 1);
	assert_int_equal(kvm_call(vcpus_fd(t.vcpus, 0), KVM_GET_LAPIC, &s), 0);
	s.regs[0xf1] |= 1; /* the bit that turns it on */
	assert_int_equal(kvm_call(vcpus_fd(t.vcpus, 0), KVM_SET_LAPIC, &s), 0);
	assert_false(pending(&t, 0x41));
	kvm_vm_signal(&t.vm, 0xfee01000, 0x41);
	assert_false(pending(&t, 0x41));
	kvm_vm_signal(&t.vm, 0xfee00000, 0x41);
	assert_true(pending(&t, 0x41));
	assert_false(pending(&t, 0x42));
	tiny_done(&t);
}

/* ---- ends ---- */

static void test_triple_fault(void **state)
{
	struct vcpus_end end;
	struct tiny t;

	(void)state;
	tiny_init_code(&t, 0x0f, 0x0b); /* ud2, and no IDT */
	tiny_create(&t, 1);
	end = tiny_run(&t);
	assert_int_equal(end.kind, VCPUS_CRASH);
	assert_non_null(strstr(end.why, "vCPU 0: triple fault"));
	assert_non_null(strstr(end.why, "rip "));
	tiny_done(&t);
}

static void test_code_that_is_no_memory(void **state)
{
	struct vcpus_end end;
	struct tiny t;

	(void)state;
	tiny_init_code(&t, 0xb8, 0x00, 0x00, 0x10, 0x00, /* mov eax, 0x100000 */
		       0xff, 0xe0);			 /* jmp rax */
	tiny_create(&t, 1);
	end = tiny_run(&t);
	assert_int_equal(end.kind, VCPUS_ERROR);
	assert_non_null(strstr(end.why, "internal error"));
	assert_non_null(strstr(end.why, "rip 0x100000"));
	tiny_done(&t);
}

static void test_impossible_state(void **state)
{
	struct kvm_regs regs = {.rip = TINY_CODE, .rflags = 2};
	struct vcpus_end end;
	struct tiny t;

	(void)state;
	tiny_init_code(&t, HLT);
	tiny_create(&t, 1);
	/* An address that no processor takes, so the first fetch faults; all KVMs end somehow. */
	regs.rip = 0x8000000000000000ull;
	assert_true(kvm_call(vcpus_fd(t.vcpus, 0), KVM_SET_REGS, &regs) >= 0);
	end = tiny_run(&t);
	assert_true(end.kind == VCPUS_CRASH || end.kind == VCPUS_ERROR);
	tiny_done(&t);
}

static void test_all_must_halt(void **state)
{
	struct vcpus_end end;
	struct tiny t;

	(void)state;
	/* vCPU 0 halts at once, 1 (esi = 1) spins until its memory says otherwise. */
	tiny_init_code(&t, 0x85, 0xf6,			   /* test esi, esi */
		       0x74, 0x0a,			   /* jz halt */
		       0x80, 0x3c, 0x25, 0, 0x30, 0, 0, 0, /* again: cmp byte [0x3000], 0 */
		       0x74, 0xf6,			   /* je again */
		       HLT);				   /* halt: */
	tiny_create(&t, 2);
	vcpus_resume(t.vcpus);
	assert_false(tiny_ended(&t, 100));
	/* A halted one counts as paused. */
	vcpus_pause(t.vcpus);
	vcpus_resume(t.vcpus);
	__atomic_store_n(&t.memory[0x3000], 1, __ATOMIC_SEQ_CST);
	assert_true(tiny_ended(&t, TINY_WAIT_MS));
	end = vcpus_get_end(t.vcpus);
	assert_int_equal(end.kind, VCPUS_HALTED);
	tiny_done(&t);
}

static void reset_write(void *arg, uint64_t off, const void *p, uint32_t len)
{
	struct tiny *t = arg;

	(void)off, (void)p, (void)len;
	vcpus_end(t->vcpus, VCPUS_RESET, "asked for");
	vcpus_end(t->vcpus, VCPUS_ERROR, "too late");
}

/* A device ends the machine on a vCPU's thread; the other vCPU spins and is stopped. */
static void test_reset_by_device(void **state)
{
	struct vcpus_end end;
	struct bus_range r = {0x64, 1, log_read, reset_write, NULL};
	struct tiny t;

	(void)state;
	tiny_init_code(&t, 0x85, 0xf6, /* test esi, esi */
		       0x75, 0x04,     /* jnz spin */
		       0xb0, 0xfe,     /* mov al, 0xfe */
		       0xe6, 0x64,     /* out 0x64, al */
		       LOOP_FOREVER);
	r.arg = &t;
	assert_int_equal(bus_add(&t.ports, &r), 0);
	tiny_create(&t, 2);
	end = tiny_run(&t);
	assert_int_equal(end.kind, VCPUS_RESET);
	assert_string_equal(end.why, "asked for");
	/* After the end these do nothing, and return. */
	vcpus_pause(t.vcpus);
	vcpus_resume(t.vcpus);
	vcpus_kick(t.vcpus, 1);
	tiny_done(&t);
}

/* ---- pause, kick, resume ---- */

/* inc dword [0x3000]; jmp back */
#define COUNTER 0xff, 0x04, 0x25, 0x00, 0x30, 0x00, 0x00, 0xeb, 0xf7

static uint32_t count(struct tiny *t)
{
	return __atomic_load_n((uint32_t *)(t->memory + 0x3000), __ATOMIC_SEQ_CST);
}

static void wait_for_progress(struct tiny *t)
{
	uint64_t until = now_ns() + (uint64_t)TINY_WAIT_MS * 1000000;
	uint32_t before = count(t);

	while (count(t) == before) {
		assert_true(now_ns() < until);
		usleep(1000);
	}
}

static void test_pause_and_resume(void **state)
{
	struct tiny t;

	(void)state;
	tiny_init_code(&t, COUNTER);
	tiny_create(&t, 3);
	vcpus_pause(t.vcpus);
	assert_int_equal(count(&t), 0);
	for (int i = 0; i < 30; i++) {
		struct kvm_regs regs;
		uint32_t at;

		vcpus_resume(t.vcpus);
		vcpus_resume(t.vcpus);
		if (i % 3 == 0)
			wait_for_progress(&t);
		vcpus_pause(t.vcpus);
		vcpus_pause(t.vcpus);
		at = count(&t);
		assert_true(kvm_call(vcpus_fd(t.vcpus, i % 3u), KVM_GET_REGS, &regs) >= 0);
		usleep(500);
		assert_int_equal(count(&t), at);
	}
	vcpus_resume(t.vcpus);
	wait_for_progress(&t);
	tiny_done(&t);
}

/* Those that may not run do not, whatever the others do, and are no hindrance to a pause. */
static void test_some_may_run(void **state)
{
	struct tiny t;
	uint32_t at;
	bool still;

	(void)state;
	tiny_init_code(&t, COUNTER);
	tiny_create(&t, 3);
	vcpus_allow(t.vcpus, 0);
	vcpus_resume(t.vcpus);
	usleep(2000);
	assert_int_equal(count(&t), 0);
	vcpus_allow(t.vcpus, 1);
	wait_for_progress(&t);
	vcpus_pause(t.vcpus);
	at = count(&t);
	vcpus_allow(t.vcpus, 3);
	usleep(500);
	assert_int_equal(count(&t), at);
	vcpus_resume(t.vcpus);
	wait_for_progress(&t);
	/* They leave soon after it was said. */
	vcpus_allow(t.vcpus, 0);
	do {
		at = count(&t);
		usleep(2000);
		still = count(&t) == at;
	} while (!still);
	assert_true(vcpus_time(t.vcpus) > 0);
	vcpus_pause(t.vcpus);
	at = count(&t);
	vcpus_resume(t.vcpus);
	usleep(2000);
	assert_int_equal(count(&t), at);
	vcpus_allow(t.vcpus, 2);
	wait_for_progress(&t);
	tiny_done(&t);
}

/* The access that a pause interrupts is complete before the pause returns. */
static void test_pause_completes_the_access(void **state)
{
	struct log l = {.answer = 0x77};
	struct tiny t;

	(void)state;
	tiny_init_code(&t, 0x31, 0xc0, /* again: xor eax, eax */
		       0xe4, 0x80,     /* in al, 0x80 */
		       0x84, 0xc0,     /* test al, al */
		       0x75, 0xf8,     /* jnz again */
		       0x0f, 0x0b);    /* never: ud2 */
	add(&t.ports, 0x80, 1, &l);
	tiny_create(&t, 1);
	for (int i = 0; i < 200; i++) {
		struct kvm_regs regs;

		vcpus_resume(t.vcpus);
		while (i % 2 && l.reads < (unsigned)i)
			sched_yield();
		vcpus_pause(t.vcpus);
		assert_true(kvm_call(vcpus_fd(t.vcpus, 0), KVM_GET_REGS, &regs) >= 0);
		/* After the `in` the register holds the answer, never what was there before. */
		if (regs.rip == TINY_CODE + 4 || regs.rip == TINY_CODE + 6)
			assert_int_equal(regs.rax & 0xff, 0x77);
	}
	assert_int_equal(vcpus_get_end(t.vcpus).kind, VCPUS_NOT_ENDED);
	tiny_done(&t);
}

struct kicker {
	struct tiny *t;
	atomic_bool stop;
};

static void *kick_main(void *arg)
{
	struct kicker *k = arg;

	while (!k->stop) {
		for (unsigned i = 0; i < vcpus_count(k->t->vcpus); i++)
			vcpus_kick(k->t->vcpus, i);
		sched_yield();
	}
	return NULL;
}

/* Kicks from another thread, pauses from this one: none is lost, none sticks. */
static void test_kick_races(void **state)
{
	struct kicker k = {0};
	pthread_t thread;
	struct tiny t;

	(void)state;
	tiny_init_code(&t, COUNTER);
	tiny_create(&t, 2);
	k.t = &t;
	assert_int_equal(pthread_create(&thread, NULL, kick_main, &k), 0);
	for (int i = 0; i < 100; i++) {
		uint32_t at;

		vcpus_resume(t.vcpus);
		if (i % 10 == 0)
			wait_for_progress(&t);
		vcpus_pause(t.vcpus);
		at = count(&t);
		sched_yield();
		assert_int_equal(count(&t), at);
	}
	k.stop = true;
	pthread_join(thread, NULL);
	vcpus_resume(t.vcpus);
	wait_for_progress(&t);
	tiny_done(&t);
}

/* Whatever state they are in, and whatever they do, vcpus_free() returns. */
static void test_free_at_any_time(void **state)
{
	(void)state;
	for (int i = 0; i < 40; i++) {
		struct log l = {0};
		struct tiny t;

		if (i % 2)
			tiny_init_code(&t, COUNTER);
		else
			tiny_init_code(&t, 0xe6, 0x80, 0xeb, 0xfc); /* again: out 0x80, al */
		add(&t.ports, 0x80, 1, &l);
		tiny_create(&t, 1 + (unsigned)i % 4);
		if (i % 5)
			vcpus_resume(t.vcpus);
		if (i % 3 == 0)
			usleep((unsigned)i * 50);
		if (i % 7 == 0)
			vcpus_pause(t.vcpus);
		tiny_done(&t);
	}
}

/* Waiting for a start that never comes, as the other CPUs of a machine do. */
static void test_free_while_not_started(void **state)
{
	struct tiny t;

	(void)state;
	tiny_init_code(&t, LOOP_FOREVER);
	assert_int_equal(kvm_call(t.vm.fd, KVM_CREATE_IRQCHIP, NULL), 0);
	tiny_create(&t, 4);
	vcpus_resume(t.vcpus);
	usleep(2000);
	vcpus_pause(t.vcpus);
	vcpus_resume(t.vcpus);
	tiny_done(&t);
}

static int refuse(void *arg, unsigned index, int fd, struct err *err)
{
	(void)arg, (void)fd;
	return index < 2 ? 0 : err_set(err, EPERM, "no");
}

static void test_creation_fails(void **state)
{
	struct err err = ERR_INIT;
	struct vcpus *v = NULL;
	struct tiny t;
	struct vcpus_params p = {.set_up = refuse};

	(void)state;
	tiny_init_code(&t, HLT);
	p.vm = &t.vm;
	p.ports = &t.ports;
	p.mmio = &t.mmio;
	assert_int_equal(vcpus_new(&v, 4, &err), 0);
	assert_int_equal(vcpus_create(v, &p, &err), -EPERM);
	v = vcpus_free(v);
	/* Threads only. */
	assert_int_equal(vcpus_new(&v, 2, &err), 0);
	v = vcpus_free(v);
	assert_int_equal(vcpus_new(&v, 0, &err), -ERR_LIMIT);
	assert_int_equal(vcpus_new(&v, 100000, &err), -ERR_LIMIT);
	assert_true(err.hint[0] != '\0');
	tiny_done(&t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_bus),
		cmocka_unit_test(test_port),
		cmocka_unit_test(test_unclaimed_port_reads_ones),
		cmocka_unit_test(test_string_output),
		cmocka_unit_test(test_mmio),
		cmocka_unit_test(test_ioeventfd),
		cmocka_unit_test(test_messages_are_interrupts),
		cmocka_unit_test(test_triple_fault),
		cmocka_unit_test(test_code_that_is_no_memory),
		cmocka_unit_test(test_impossible_state),
		cmocka_unit_test(test_all_must_halt),
		cmocka_unit_test(test_reset_by_device),
		cmocka_unit_test(test_pause_and_resume),
		cmocka_unit_test(test_some_may_run),
		cmocka_unit_test(test_pause_completes_the_access),
		cmocka_unit_test(test_kick_races),
		cmocka_unit_test(test_free_at_any_time),
		cmocka_unit_test(test_free_while_not_started),
		cmocka_unit_test(test_creation_fails),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
