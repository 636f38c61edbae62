/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rings straight from the input: two bytes of settings, then guest memory with the rings at its
 * start. Between pops single bytes of memory change, as a hostile driver's would.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>

#include "base/iov.h"
#include "virtio/virtqueue.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { MEM = 16384, LOW = 12288 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static _Alignas(4096) uint8_t mem[MEM];
	static struct iovec iov[VIRTQUEUE_CHAIN_MAX];
	struct virtqueue_state s = {0, 1024, 2048, 16, 0, 0};
	struct guest_memory m = {0};
	struct virtqueue vq;
	uint64_t features = 1ull << VIRTIO_F_VERSION_1;

	if (size < 4)
		return 0;
	if (data[0] & 1)
		features |= 1ull << VIRTIO_RING_F_INDIRECT_DESC;
	if (data[0] & 2)
		features |= 1ull << VIRTIO_RING_F_EVENT_IDX;
	s.size = (uint16_t)(1u << (data[0] >> 2 & 7));
	s.last_avail = (uint16_t)(data[1] << 8 | data[2]);
	if (data[0] & 32)
		s.used = data[3] * 64u; /* anywhere, on top of the others too */
	data += 4;
	size -= 4;
	memset(mem, 0, sizeof(mem));
	memcpy(mem, data, size < MEM ? size : MEM);
	/* Two regions that touch, and one apart. */
	if (guest_memory_add(&m, 0, 8192, mem) ||
	    guest_memory_add(&m, 8192, LOW - 8192, mem + 8192) ||
	    guest_memory_add(&m, 1ull << 32, MEM - LOW, mem + LOW))
		abort();
	if (virtqueue_start(&vq, &s, features, &m) < 0)
		return 0;
	for (unsigned i = 0; i < 64; i++) {
		struct virtqueue_chain c;
		unsigned niov = i % 3 == 2 ? 4 : VIRTQUEUE_CHAIN_MAX;
		int r = virtqueue_pop(&vq, &c, iov, niov);

		if (r == 1) {
			if (iov_size(c.read, c.nread) != c.read_len ||
			    iov_size(c.write, c.nwrite) != c.write_len)
				abort();
			for (unsigned k = 0; k < c.nread + c.nwrite; k++) {
				uint8_t *p = c.read[k].iov_base;

				if (p < mem || p + c.read[k].iov_len > mem + MEM)
					abort();
			}
			iov_zero(c.write, c.nwrite, 0, 64);
			if (i % 5 == 4)
				virtqueue_rewind(&vq, 1);
			else
				virtqueue_push(&vq, c.head, c.write_len);
			(void)virtqueue_should_notify(&vq);
		}
		if (r == 0)
			(void)virtqueue_enable_kick(&vq);
		else
			virtqueue_disable_kick(&vq);
		if (size)
			mem[(i * 2654435761u) % 2200] ^= data[i % size];
	}
	return 0;
}
