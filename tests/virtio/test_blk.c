/* SPDX-License-Identifier: Apache-2.0 */
#include "test.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/virtio_blk.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "driver.h"
#include "virtio/blk.h"

#define DISK (1u << 20)
#define FEATURES                                                                                   \
	(1ull << VIRTIO_F_VERSION_1 | 1ull << VIRTIO_RING_F_INDIRECT_DESC |                        \
	 1ull << VIRTIO_RING_F_EVENT_IDX)

/* A file system without holes, when a test wants one. */
static bool no_holes;

int fallocate(int fd, int mode, off_t off, off_t len)
{
	if (!no_holes)
		return (int)syscall(SYS_fallocate, fd, mode, off, len);
	errno = EOPNOTSUPP;
	return -1;
}

enum { HDR = 0x100000, DATA = 0x110000, STATUS = 0x200000 };

struct fixture {
	struct drv d;
	struct drvq q;
	struct virtio_device *dev;
	int fd;
	atomic_uint broken;
	const char *why;
};

static void on_broken(struct virtio_device *dev, const char *why, void *arg)
{
	struct fixture *f = arg;

	(void)dev;
	f->why = why;
	atomic_fetch_add(&f->broken, 1);
}

static void start_queue(struct fixture *f)
{
	drvq_init(&f->q, &f->d, 64);
	f->q.event_idx = true;
	assert_int_equal(virtio_device_activate(f->dev, FEATURES, &f->d.map), 0);
	assert_int_equal(virtio_queue_start(f->dev, 0, &f->q.s, f->q.kick, f->q.call), 0);
}

static struct fixture *new_fixture(struct blk_disk *disk)
{
	struct fixture *f = calloc(1, sizeof(*f));

	drv_init(&f->d);
	assert_int_equal(blk_device_new(disk, &(struct blk_options){.serial = "msb-test"}, &f->dev,
					NULL),
			 0);
	virtio_device_on_broken(f->dev, on_broken, f);
	start_queue(f);
	return f;
}

static int setup_with(void **state, bool read_only)
{
	struct blk_disk *disk;
	int fd = io_memfd("disk", NULL, 0, NULL);
	struct fixture *f;

	if (fd < 0 || ftruncate(fd, DISK) < 0 ||
	    blk_file_new(fd, &(struct blk_file_options){.read_only = read_only}, &disk, NULL) < 0)
		return -1;
	f = new_fixture(disk);
	f->fd = fd;
	*state = f;
	return 0;
}

static int setup(void **state)
{
	return setup_with(state, false);
}

static int setup_ro(void **state)
{
	return setup_with(state, true);
}

static int setup_no_holes(void **state)
{
	no_holes = true;
	return setup_with(state, false);
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	no_holes = false;

	virtio_device_free(f->dev);
	drvq_done(&f->q);
	drv_done(&f->d);
	close_fd(f->fd);
	free(f);
	return 0;
}

static void put_header(struct fixture *f, uint32_t type, uint64_t sector)
{
	*(struct virtio_blk_outhdr *)drv_at(&f->d, HDR) =
		(struct virtio_blk_outhdr){.type = type, .sector = sector};
	*(uint8_t *)drv_at(&f->d, STATUS) = 0xee;
}

/* One request with @len bytes at DATA, in two pieces; returns the status, or -1. */
static int request(struct fixture *f, uint32_t type, uint64_t sector, uint32_t len)
{
	bool in = type == VIRTIO_BLK_T_IN || type == VIRTIO_BLK_T_GET_ID;
	uint32_t first = len / 3;
	struct drvbuf b[4] = {{HDR, 16, false},
			      {DATA, first, in},
			      {DATA + first, len - first, in},
			      {STATUS, 1, true}};
	int64_t written;

	put_header(f, type, sector);
	drvq_add(&f->q, b, 4);
	written = drvq_finish(&f->q);
	if (written < 0)
		return -1;
	assert_int_equal(written, in ? len + 1 : 1);
	return *(uint8_t *)drv_at(&f->d, STATUS);
}

static void random_requests_match_a_model(void **state)
{
	struct fixture *f = *state;
	uint8_t *model = calloc(1, DISK), *file = malloc(DISK);
	uint8_t *data = drv_at(&f->d, DATA);
	uint64_t seed = 42;

	for (unsigned i = 0; i < 4000; i++) {
		uint64_t r = drv_random(&seed), sector = drv_random(&seed) % (DISK / 512);
		uint32_t n = (uint32_t)(r >> 8) % 40 * 512;
		bool fits = sector * 512 + n <= DISK;
		struct virtio_blk_discard_write_zeroes *z = (void *)data;
		int want = fits ? VIRTIO_BLK_S_OK : VIRTIO_BLK_S_IOERR;

		switch (r % 5) {
		case 0:
			memset(data, 0xaa, n);
			assert_int_equal(request(f, VIRTIO_BLK_T_IN, sector, n), want);
			if (fits && n)
				assert_memory_equal(data, model + sector * 512, n);
			for (unsigned k = 0; !fits && k < n; k++)
				assert_int_equal(data[k], 0);
			break;
		case 1:
			for (uint32_t k = 0; k < n / 8; k++)
				((uint64_t *)(void *)data)[k] = drv_random(&seed);
			assert_int_equal(request(f, VIRTIO_BLK_T_OUT, sector, n), want);
			if (fits)
				memcpy(model + sector * 512, data, n);
			break;
		case 2:
		case 3:
			*z = (struct virtio_blk_discard_write_zeroes){sector, n / 512, r >> 40 & 1};
			if (r % 5 == 2)
				z->flags = 0;
			assert_int_equal(request(f,
						 r % 5 == 2 ? VIRTIO_BLK_T_DISCARD
							    : VIRTIO_BLK_T_WRITE_ZEROES,
						 0, 16),
					 want);
			if (fits)
				memset(model + sector * 512, 0, n);
			break;
		default:
			assert_int_equal(request(f, VIRTIO_BLK_T_FLUSH, 0, 0), VIRTIO_BLK_S_OK);
		}
	}
	assert_int_equal(pread(f->fd, file, DISK, 0), DISK);
	assert_memory_equal(file, model, DISK);
	assert_int_equal(f->broken, 0);
	free(model);
	free(file);
}

static void bad_requests_get_an_error(void **state)
{
	struct fixture *f = *state;
	struct virtio_blk_discard_write_zeroes *z = drv_at(&f->d, DATA);
	char *id = drv_at(&f->d, DATA);

	assert_int_equal(request(f, VIRTIO_BLK_T_IN, 0, 511), VIRTIO_BLK_S_IOERR);
	assert_int_equal(request(f, VIRTIO_BLK_T_OUT, 0, 513), VIRTIO_BLK_S_IOERR);
	assert_int_equal(request(f, VIRTIO_BLK_T_IN, UINT64_MAX, 512), VIRTIO_BLK_S_IOERR);
	assert_int_equal(request(f, VIRTIO_BLK_T_IN, UINT64_MAX / 512, 1024), VIRTIO_BLK_S_IOERR);
	assert_int_equal(request(f, VIRTIO_BLK_T_OUT, DISK / 512, 512), VIRTIO_BLK_S_IOERR);
	assert_int_equal(request(f, VIRTIO_BLK_T_OUT, DISK / 512, 0), VIRTIO_BLK_S_OK);
	assert_int_equal(request(f, 99, 0, 512), VIRTIO_BLK_S_UNSUPP);
	assert_int_equal(request(f, VIRTIO_BLK_T_SCSI_CMD, 0, 64), VIRTIO_BLK_S_UNSUPP);
	*z = (struct virtio_blk_discard_write_zeroes){0, 8, 1};
	assert_int_equal(request(f, VIRTIO_BLK_T_DISCARD, 0, 16), VIRTIO_BLK_S_UNSUPP);
	*z = (struct virtio_blk_discard_write_zeroes){0, 8, 2};
	assert_int_equal(request(f, VIRTIO_BLK_T_WRITE_ZEROES, 0, 16), VIRTIO_BLK_S_UNSUPP);
	*z = (struct virtio_blk_discard_write_zeroes){UINT64_MAX, UINT32_MAX, 0};
	assert_int_equal(request(f, VIRTIO_BLK_T_DISCARD, 0, 16), VIRTIO_BLK_S_IOERR);
	assert_int_equal(request(f, VIRTIO_BLK_T_DISCARD, 0, 15), VIRTIO_BLK_S_IOERR);
	assert_int_equal(request(f, VIRTIO_BLK_T_DISCARD, 0, 0), VIRTIO_BLK_S_IOERR);
	assert_int_equal(request(f, VIRTIO_BLK_T_DISCARD, 0, 17 * 16), VIRTIO_BLK_S_IOERR);
	assert_int_equal(request(f, VIRTIO_BLK_T_GET_ID, 0, 20), VIRTIO_BLK_S_OK);
	assert_string_equal(id, "msb-test");
	assert_int_equal(request(f, VIRTIO_BLK_T_GET_ID, 0, 3), VIRTIO_BLK_S_OK);
	assert_int_equal(f->broken, 0);
}

static void read_only_disks_refuse_writes(void **state)
{
	struct fixture *f = *state;
	uint32_t *z = drv_at(&f->d, DATA);

	memset(z, 0, 16);
	z[2] = 8;
	assert_true(f->dev->offered & 1ull << VIRTIO_BLK_F_RO);
	assert_false(f->dev->offered & 1ull << VIRTIO_BLK_F_DISCARD);
	assert_int_equal(request(f, VIRTIO_BLK_T_OUT, 0, 512), VIRTIO_BLK_S_IOERR);
	assert_int_equal(request(f, VIRTIO_BLK_T_DISCARD, 0, 16), VIRTIO_BLK_S_IOERR);
	assert_int_equal(request(f, VIRTIO_BLK_T_WRITE_ZEROES, 0, 16), VIRTIO_BLK_S_IOERR);
	assert_int_equal(request(f, VIRTIO_BLK_T_FLUSH, 0, 0), VIRTIO_BLK_S_OK);
	assert_int_equal(request(f, VIRTIO_BLK_T_IN, 0, 512), VIRTIO_BLK_S_OK);
}

/* Zeros that must be written are the driver's to write: a stop would wait for all of them. */
static void zeroes_are_never_written(void **state)
{
	struct fixture *f = *state;
	struct virtio_blk_discard_write_zeroes *z = drv_at(&f->d, DATA);
	char word[7] = "", *data = drv_at(&f->d, DATA);

	assert_true(f->dev->offered & 1ull << VIRTIO_BLK_F_DISCARD);
	assert_false(f->dev->offered & 1ull << VIRTIO_BLK_F_WRITE_ZEROES);
	memcpy(data, "written", 7);
	assert_int_equal(request(f, VIRTIO_BLK_T_OUT, 0, 512), VIRTIO_BLK_S_OK);
	for (uint32_t unmap = 0; unmap < 2; unmap++) {
		*z = (struct virtio_blk_discard_write_zeroes){0, DISK / 512, unmap};
		assert_int_equal(request(f, VIRTIO_BLK_T_WRITE_ZEROES, 0, 16), VIRTIO_BLK_S_UNSUPP);
	}
	*z = (struct virtio_blk_discard_write_zeroes){0, DISK / 512, 0};
	assert_int_equal(request(f, VIRTIO_BLK_T_DISCARD, 0, 16), VIRTIO_BLK_S_OK);
	assert_int_equal(pread(f->fd, word, 7, 0), 7);
	assert_memory_equal(word, "written", 7);
}

/* That a file is asked for holes leaves no trace in it. */
static void zeroes_are_offered_with_holes(void **state)
{
	struct fixture *f = *state;
	struct stat st;

	assert_true(f->dev->offered & 1ull << VIRTIO_BLK_F_WRITE_ZEROES);
	assert_int_equal(fstat(f->fd, &st), 0);
	assert_int_equal(st.st_size, DISK);
	assert_int_equal(st.st_blocks, 0);
}

/* The whole request in one-byte buffers: nothing may depend on how it is cut (2.7.4.3). */
static void framing_means_nothing(void **state)
{
	struct fixture *f = *state;
	struct vring_desc *t = drv_at(&f->d, 0x300000);
	uint8_t *data = drv_at(&f->d, DATA);
	unsigned n = 0;

	assert_int_equal(pwrite(f->fd, "framing", 7, 1024), 7);
	put_header(f, VIRTIO_BLK_T_IN, 2);
	for (unsigned i = 0; i < 16; i++)
		t[n++] = (struct vring_desc){HDR + i, 1, VRING_DESC_F_NEXT, 0};
	for (unsigned i = 0; i < 512; i++)
		t[n++] =
			(struct vring_desc){DATA + i, 1, VRING_DESC_F_NEXT | VRING_DESC_F_WRITE, 0};
	for (unsigned i = 0; i < n; i++)
		t[i].next = (uint16_t)(i + 1);
	t[n++] = (struct vring_desc){STATUS, 1, VRING_DESC_F_WRITE, 0};
	drvq_set(&f->q, 0, 0x300000, n * 16, VRING_DESC_F_INDIRECT, 0);
	drvq_publish(&f->q, 0);
	assert_int_equal(drvq_finish(&f->q), 513);
	assert_int_equal(*(uint8_t *)drv_at(&f->d, STATUS), VIRTIO_BLK_S_OK);
	assert_string_equal((char *)data, "framing");
}

static void wait_broken(struct fixture *f, const char *why)
{
	drvq_kick(&f->q);
	for (unsigned i = 0; i < 60000 && !atomic_load(&f->broken); i++)
		usleep(1000);
	assert_int_equal(f->broken, 1);
	assert_string_equal(f->why, why);
	assert_true(virtio_device_broken(f->dev));
}

static void nonsense_breaks_the_device_until_reset(void **state)
{
	struct fixture *f = *state;
	struct drvbuf no_status = {HDR, 16, false}, no_header = {STATUS, 1, true};
	struct virtqueue_state s;

	drvq_add(&f->q, &no_status, 1);
	wait_broken(f, "request without a header or a status byte");
	assert_int_equal(virtio_queue_stop(f->dev, 0, &s), 0);
	assert_int_equal(virtio_queue_start(f->dev, 0, &f->q.s, f->q.kick, f->q.call), -EPIPE);
	virtio_device_reset(f->dev);
	drvq_done(&f->q);
	start_queue(f);
	assert_int_equal(request(f, VIRTIO_BLK_T_IN, 0, 512), VIRTIO_BLK_S_OK);
	atomic_store(&f->broken, 0);
	drvq_add(&f->q, &no_header, 1);
	wait_broken(f, "request without a header or a status byte");
	/* Kicks of a broken device do nothing. */
	drvq_kick(&f->q);
	virtio_device_reset(f->dev);
	drvq_done(&f->q);
	start_queue(f);
	assert_int_equal(request(f, VIRTIO_BLK_T_IN, 0, 512), VIRTIO_BLK_S_OK);
}

static void pause_and_resume_lose_nothing(void **state)
{
	struct fixture *f = *state;
	struct drvbuf b[3] = {{HDR, 16, false}, {DATA, 4096, true}, {STATUS, 1, true}};
	struct virtqueue_state s;
	uint32_t id, len;
	unsigned sent = 0, done = 0;

	put_header(f, VIRTIO_BLK_T_IN, 0);
	for (unsigned round = 0; round < 300; round++) {
		for (; sent - done < 20; sent++)
			drvq_add(&f->q, b, 3);
		drvq_kick(&f->q);
		if (round % 3 == 0) {
			virtio_device_pause(f->dev);
			assert_false(virtio_queue_running(f->dev, 0));
			assert_int_equal(virtio_queue_paused_state(f->dev, 0, &s), 0);
			assert_int_equal(s.last_avail, s.last_used);
			assert_int_equal(virtio_device_resume(f->dev), 0);
		}
		while (drvq_take(&f->q, &id, &len))
			done++;
	}
	while (done < sent) {
		drvq_wait(&f->q, 1);
		while (drvq_take(&f->q, &id, &len))
			done++;
	}
	assert_int_equal(f->broken, 0);
}

static void stops_and_resets_under_load(void **state)
{
	struct fixture *f = *state;
	struct drvbuf b[3] = {{HDR, 16, false}, {DATA, 65536, true}, {STATUS, 1, true}};

	for (unsigned round = 0; round < 100; round++) {
		struct vring_used before, after;

		put_header(f, VIRTIO_BLK_T_IN, 0);
		for (unsigned i = 0; i < 20; i++)
			drvq_add(&f->q, b, 3);
		for (unsigned i = 0; i < 100; i++)
			drvq_kick(&f->q);
		virtio_device_reset(f->dev);
		/* From here on the device must not touch the ring. */
		before = *drvq_used(&f->q);
		drvq_kick(&f->q);
		after = *drvq_used(&f->q);
		assert_int_equal(before.idx, after.idx);
		drvq_done(&f->q);
		memset(f->d.mem + 4096, 0, 64 * 1024);
		f->d.next = 4096;
		start_queue(f);
	}
	assert_int_equal(f->broken, 0);
}

/* A disk that counts reads, and how many there were when the worker's loop next had its turn. */
struct slow_disk {
	struct blk_disk disk;
	struct virtio_device *dev;
	struct loop_timer turn;
	unsigned reads;
	atomic_uint at_turn;
};

static void on_turn(struct loop_timer *t)
{
	struct slow_disk *d = container_of(t, struct slow_disk, turn);

	atomic_store(&d->at_turn, d->reads);
}

static int slow_read(struct blk_disk *disk, struct iovec *iov, unsigned niov, uint64_t off)
{
	struct slow_disk *d = container_of(disk, struct slow_disk, disk);

	(void)iov, (void)niov, (void)off;
	if (d->reads++ == 0)
		return loop_timer_in(virtio_queue_loop(d->dev, 0), &d->turn, 0);
	return 0;
}

static void slow_free(struct blk_disk *disk)
{
	(void)disk;
}

/* A stop waits for a slice of requests: so large ones must make it short. */
static void large_requests_do_not_hold_up_a_stop(void **state)
{
	static const struct blk_disk_ops ops = {.read = slow_read, .free = slow_free};
	struct slow_disk d = {{&ops, DISK, true}, NULL, {.fn = on_turn}, 0, 0};
	struct fixture *f = new_fixture(&d.disk);
	const struct drvbuf b[3] = {{HDR, 16, false}, {DATA, DISK, true}, {DATA - 1, 1, true}};

	(void)state;
	d.dev = f->dev;
	put_header(f, VIRTIO_BLK_T_IN, 0);
	for (unsigned i = 0; i < 20; i++)
		drvq_add(&f->q, b, 3);
	drvq_kick(&f->q);
	while (!atomic_load(&d.at_turn))
		drvq_wait(&f->q, 1);
	if (d.at_turn > 8)
		fail_msg("%u MiB were read before a stop had a chance", d.at_turn);
	f->fd = -1;
	teardown((void **)&f);
}

static void transport_mistakes_are_refused(void **state)
{
	struct fixture *f = *state;
	struct virtqueue_state s = f->q.s;
	uint8_t c[80] __attribute__((aligned(8)));

	assert_int_equal(virtio_queue_start(f->dev, 0, &s, f->q.kick, -1), -EALREADY);
	assert_int_equal(virtio_queue_start(f->dev, 1, &s, f->q.kick, -1), -EINVAL);
	assert_int_equal(virtio_queue_stop(f->dev, 7, &s), -EINVAL);
	assert_int_equal(virtio_device_activate(f->dev, FEATURES, &f->d.map), -EBUSY);
	virtio_device_pause(f->dev);
	assert_int_equal(virtio_queue_stop(f->dev, 0, &s), 0);
	assert_int_equal(virtio_queue_stop(f->dev, 0, &s), -EINVAL);
	assert_int_equal(virtio_device_resume(f->dev), 0);
	assert_false(virtio_queue_running(f->dev, 0));
	assert_int_equal(virtio_device_activate(f->dev, 1ull << 50, &f->d.map), -EINVAL);
	assert_int_equal(virtio_queue_start(f->dev, 0, &s, -1, -1), -EINVAL);
	s.desc = DRV_LOW;
	assert_int_equal(virtio_queue_start(f->dev, 0, &s, f->q.kick, -1), -EFAULT);
	s.desc = f->q.s.desc;
	assert_int_equal(virtio_device_activate(f->dev, 0, &f->d.map), 0);
	assert_int_equal(virtio_queue_start(f->dev, 0, &s, f->q.kick, -1), -EINVAL);

	for (uint64_t off = 0; off < 70; off++) {
		memset(c, 0xaa, sizeof(c));
		virtio_config_read(f->dev, off, c, 9);
		assert_int_equal(c[9], 0xaa);
		if (off == 0)
			assert_int_equal(*(uint64_t *)(void *)c, DISK / 512);
		assert_int_equal(virtio_config_write(f->dev, off, c, 4), -EINVAL);
	}
	virtio_config_read(f->dev, UINT64_MAX - 3, c, 8);
	assert_int_equal(c[0] | c[7], 0);
	virtio_config_read(f->dev, UINT32_MAX, c, 8);
	assert_int_equal(c[0] | c[7], 0);
}

static void extent_disks_match_a_model(void **state)
{
	uint64_t seed = 5;

	(void)state;
	for (unsigned round = 0; round < 20; round++) {
		struct blk_extent e[50];
		uint8_t *model, *data;
		uint64_t at = 0, size;
		struct blk_disk *disk;
		unsigned n = 1 + (unsigned)(drv_random(&seed) % 50);
		struct fixture *f;
		int fd[2];

		for (int k = 0; k < 2; k++) {
			uint8_t *junk = malloc(300000);

			for (unsigned i = 0; i < 300000; i++)
				junk[i] = (uint8_t)drv_random(&seed);
			fd[k] = io_memfd("part", junk, 300000, NULL);
			free(junk);
		}
		for (unsigned i = 0; i < n; i++) {
			uint64_t len = 1 + drv_random(&seed) % 20000;

			at += drv_random(&seed) % 2 * (drv_random(&seed) % 9000);
			e[i] = (struct blk_extent){at, len, fd[i % 2],
						   drv_random(&seed) % (300000 - len)};
			at += len;
		}
		size = at + drv_random(&seed) % 5000;
		assert_int_equal(blk_extents_new(e, n, size, &disk, NULL), 0);
		size = disk->size;
		assert_true(disk->read_only && size % 512 == 0 && size >= at);
		model = calloc(1, size);
		for (unsigned i = 0; i < n; i++)
			assert_int_equal(pread(e[i].fd, model + e[i].start, e[i].length,
					       (off_t)e[i].offset),
					 e[i].length);
		f = new_fixture(disk);
		f->fd = -1;
		data = drv_at(&f->d, DATA);
		for (unsigned i = 0; i < 200; i++) {
			uint64_t sector = drv_random(&seed) % (size / 512);
			uint32_t len =
				(uint32_t)MIN(drv_random(&seed) % 200 * 512, size - sector * 512);

			memset(data, 0xaa, len);
			assert_int_equal(request(f, VIRTIO_BLK_T_IN, sector, len), VIRTIO_BLK_S_OK);
			if (len)
				assert_memory_equal(data, model + sector * 512, len);
		}
		/* A file that shrinks under us is a read error, not a lie. */
		if (n == 1 || round == 0) {
			assert_int_equal(ftruncate(fd[0], 0), 0);
			assert_int_equal(request(f, VIRTIO_BLK_T_IN, e[0].start / 512 + 1, 512),
					 e[0].start / 512 * 512 + 1024 <= e[0].start + e[0].length
						 ? VIRTIO_BLK_S_IOERR
						 : VIRTIO_BLK_S_OK);
		}
		teardown((void **)&f);
		free(model);
		close(fd[0]);
		close(fd[1]);
	}
}

static void bad_disks_are_refused(void **state)
{
	int fd = io_memfd("part", "0123456789", 10, NULL), null = open("/dev/null", O_RDWR);
	const struct {
		struct blk_extent e[2];
		uint64_t size;
	} bad[] = {
		{{{0, 11, fd, 0}, {11, 1, fd, 0}}, 512},
		{{{0, 0, fd, 0}, {11, 1, fd, 0}}, 512},
		{{{0, 4, fd, 7}, {11, 1, fd, 0}}, 512},
		{{{0, 4, fd, UINT64_MAX}, {11, 1, fd, 0}}, 512},
		{{{0, 4, fd, 0}, {3, 1, fd, 0}}, 512},
		{{{0, 4, fd, 0}, {512, 1, fd, 0}}, 512},
		{{{UINT64_MAX, 4, fd, 0}, {11, 1, fd, 0}}, 512},
		{{{0, 4, null, 0}, {11, 1, fd, 0}}, 512},
		{{{0, 4, -1, 0}, {11, 1, fd, 0}}, 512},
		{{{0, 4, fd, 0}, {11, 1, fd, 0}}, 0},
		{{{0, 4, fd, 0}, {11, 1, fd, 0}}, UINT64_MAX},
	};
	struct blk_disk *d = NULL;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_true(blk_extents_new(bad[i].e, 2, bad[i].size, &d, NULL) < 0);
	assert_true(blk_file_new(null, &(struct blk_file_options){0}, &d, NULL) < 0);
	assert_true(blk_file_new(fd, &(struct blk_file_options){0}, &d, NULL) < 0);
	assert_null(d);
	close(fd);
	close(null);
}

#define WITH(setup_fn, name) cmocka_unit_test_setup_teardown(name, setup_fn, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		WITH(setup, random_requests_match_a_model),
		WITH(setup, bad_requests_get_an_error),
		WITH(setup_no_holes, zeroes_are_never_written),
		WITH(setup, zeroes_are_offered_with_holes),
		WITH(setup_ro, read_only_disks_refuse_writes),
		WITH(setup, framing_means_nothing),
		WITH(setup, nonsense_breaks_the_device_until_reset),
		WITH(setup, pause_and_resume_lose_nothing),
		WITH(setup, stops_and_resets_under_load),
		WITH(setup, transport_mistakes_are_refused),
		cmocka_unit_test(large_requests_do_not_hold_up_a_stop),
		cmocka_unit_test(extent_disks_match_a_model),
		cmocka_unit_test(bad_disks_are_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
