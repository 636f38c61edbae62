/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The kernel's side of a virtual machine: /dev/kvm, the VM's descriptor, memory slots, eventfds tied
 * to guest accesses, and interrupts. Linux, Documentation/virt/kvm/api.rst.
 *
 * Belongs to one thread, except that kvm_call() and kvm_vm_signal() may be used by any.
 */
#ifndef MACHINE_KVM_VM_H
#define MACHINE_KVM_VM_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

struct kvm_vm {
	int dev, fd;	   /* -1 when closed */
	unsigned run_size; /* bytes of a vCPU's shared page(s) */
	unsigned nslots;
};

#define KVM_VM_INIT                                                                                \
	{                                                                                          \
		-1, -1, 0, 0                                                                       \
	}

/*
 * ioctl() that waits out EINTR and, for a second, EAGAIN: creating a VM may fail with either while
 * the host is busy. Not for KVM_RUN. Returns what ioctl() does, or -errno.
 */
int kvm_call(int fd, unsigned long request, void *arg);

/*
 * Open /dev/kvm and make sure that it can do all we ask for. The words of the error and its hint
 * are for people. -ENOENT when the module is not loaded, -ENXIO in a virtual machine without nested
 * virtualisation, -ENODEV without any, -EACCES, -ERR_UNSUPPORTED for too old a kernel.
 */
int kvm_open(const char *path, int *ret, struct err *err);

/*
 * Why @path could not be opened, judged by @error (-ENOENT, -EACCES...), by the file itself and by
 * what @proc ("/proc") says of the host; returns what kvm_open() does.
 */
int kvm_explain(int error, const char *path, const char *proc, struct err *err);

/* Create a VM on @dev, which it owns from here on, whether this succeeds or not. */
int kvm_vm_init(struct kvm_vm *vm, int dev, struct err *err);
void kvm_vm_done(struct kvm_vm *vm);

/* Let the guest see @size bytes of @host at @gpa. Of @registers a write is one to no memory. */
int kvm_vm_add_memory(struct kvm_vm *vm, uint64_t gpa, uint64_t size, void *host, bool registers,
		      struct err *err);

/*
 * A write of @len bytes (0: any width) at guest-physical @gpa signals @eventfd and does not leave
 * the kernel; with @match only if it writes *@match.
 */
int kvm_vm_ioeventfd(struct kvm_vm *vm, uint64_t gpa, uint32_t len, const uint32_t *match,
		     int eventfd, struct err *err);

/* Local APICs for the vCPUs to come; what sends them interrupts is ours. */
int kvm_vm_local_apics(struct kvm_vm *vm, struct err *err);
/* A message to them (MSI). One for nobody is lost. */
void kvm_vm_signal(const struct kvm_vm *vm, uint32_t address, uint32_t data);

/* A vCPU's descriptor, or a negative error. */
int kvm_vm_create_vcpu(struct kvm_vm *vm, unsigned index, struct err *err);

#endif
