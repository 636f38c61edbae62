/* SPDX-License-Identifier: Apache-2.0 */
#include "machine/kvm/vm.h"

#include <errno.h>
#include <linux/kvm.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/loop.h"

#define AGAIN_LIMIT_NS 1000000000u

int kvm_call(int fd, unsigned long request, void *arg)
{
	uint64_t until = 0;

	for (;;) {
		const struct timespec pause = {.tv_nsec = 200000};
		int r = ioctl(fd, request, arg);

		if (r >= 0)
			return r;
		if (errno == EINTR)
			continue;
		if (errno != EAGAIN)
			return -errno;
		if (!until)
			until = now_ns() + AGAIN_LIMIT_NS;
		if (now_ns() > until)
			return -EAGAIN;
		/* Nothing tells when the kernel has what it lacked. */
		nanosleep(&pause, NULL);
	}
}

int kvm_vm_init(struct kvm_vm *vm, int dev, struct err *err)
{
	int r;

	*vm = (struct kvm_vm)KVM_VM_INIT;
	vm->dev = dev;
	r = kvm_call(dev, KVM_CREATE_VM, NULL);
	if (r < 0) {
		err_set(err, r, "KVM cannot create a virtual machine: %s", err_name(r));
		if (r == -EBUSY)
			err_hint(err, "another hypervisor holds the processor's virtualisation; "
				      "stop it, or use --engine qemu");
		kvm_vm_done(vm);
		return r;
	}
	vm->fd = r;
	r = kvm_call(dev, KVM_GET_VCPU_MMAP_SIZE, NULL);
	if (r < (int)sizeof(struct kvm_run)) {
		kvm_vm_done(vm);
		return err_set(err, EIO, "KVM's vCPU area is too small: %d bytes", r);
	}
	vm->run_size = (unsigned)r;
	return 0;
}

void kvm_vm_done(struct kvm_vm *vm)
{
	vm->fd = close_fd(vm->fd);
	vm->dev = close_fd(vm->dev);
}

int kvm_vm_add_memory(struct kvm_vm *vm, uint64_t gpa, uint64_t size, void *host, bool registers,
		      struct err *err)
{
	struct kvm_userspace_memory_region region = {
		.slot = vm->nslots,
		.flags = registers ? KVM_MEM_READONLY : 0,
		.guest_phys_addr = gpa,
		.memory_size = size,
		.userspace_addr = (uintptr_t)host,
	};
	int r = kvm_call(vm->fd, KVM_SET_USER_MEMORY_REGION, &region);

	if (r < 0)
		return err_set(err, r, "KVM refuses %llu KiB of memory at %#llx: %s",
			       (unsigned long long)(size >> 10), (unsigned long long)gpa,
			       err_name(r));
	vm->nslots++;
	return 0;
}

int kvm_vm_ioeventfd(struct kvm_vm *vm, uint64_t gpa, uint32_t len, const uint32_t *match,
		     int eventfd, struct err *err)
{
	struct kvm_ioeventfd e = {
		.addr = gpa,
		.len = len,
		.fd = eventfd,
		.flags = match ? KVM_IOEVENTFD_FLAG_DATAMATCH : 0,
		.datamatch = match ? *match : 0,
	};
	int r = kvm_call(vm->fd, KVM_IOEVENTFD, &e);

	return r < 0 ? err_set(err, r, "KVM refuses an ioeventfd at %#llx: %s",
			       (unsigned long long)gpa, err_name(r))
		     : 0;
}

int kvm_vm_local_apics(struct kvm_vm *vm, struct err *err)
{
	/* No lines of KVM's, and so no ends of interrupts that it would have to tell. */
	struct kvm_enable_cap cap = {.cap = KVM_CAP_SPLIT_IRQCHIP, .args = {0}};
	int r = kvm_call(vm->fd, KVM_ENABLE_CAP, &cap);

	return r < 0 ? err_set(err, r, "KVM refuses local interrupt controllers: %s", err_name(r))
		     : 0;
}

void kvm_vm_signal(const struct kvm_vm *vm, uint32_t address, uint32_t data)
{
	struct kvm_msi msi = {.address_lo = address, .data = data};

	(void)kvm_call(vm->fd, KVM_SIGNAL_MSI, &msi);
}

int kvm_vm_create_vcpu(struct kvm_vm *vm, unsigned index, struct err *err)
{
	int r = kvm_call(vm->fd, KVM_CREATE_VCPU, (void *)(uintptr_t)index);

	return r < 0 ? err_set(err, r, "KVM cannot create vCPU %u: %s", index, err_name(r)) : r;
}
