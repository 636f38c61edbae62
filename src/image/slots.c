/* SPDX-License-Identifier: Apache-2.0 */
#include "image/slots.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"

#define MEMORY_SIZE ((size_t)SLOTS_COUNT * SLOT_SIZE)

static int map(struct slots *s, bool write, struct err *err)
{
	void *p = mmap(NULL, MEMORY_SIZE, write ? PROT_READ | PROT_WRITE : PROT_READ, MAP_SHARED,
		       s->memory, 0);

	if (p == MAP_FAILED)
		return err_errno(err, "cannot share memory");
	s->p = p;
	return 0;
}

int slots_make(struct slots *s, bool write, int *ret_peer, struct err *err)
{
	/* Who could make it shorter could end the other side. */
	int seals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL, pair[2], r;

	s->memory = memfd_create("slots", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (s->memory < 0 || ftruncate(s->memory, (off_t)MEMORY_SIZE) < 0)
		return err_errno(err, "cannot share memory");
	r = map(s, write, err);
	if (r < 0)
		return r;
	/* This mapping can still write. */
	if (write)
		seals |= F_SEAL_FUTURE_WRITE;
	if (fcntl(s->memory, F_ADD_SEALS, seals) < 0 ||
	    socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		return err_errno(err, "cannot share memory");
	s->socket = pair[0];
	*ret_peer = pair[1];
	return 0;
}

int slots_join(struct slots *s, bool write, int memory, int socket, struct err *err)
{
	int r;

	s->memory = memory;
	s->socket = socket;
	r = map(s, write, err);
	s->memory = close_fd(s->memory);
	return r;
}

void slots_done(struct slots *s)
{
	if (s->p)
		munmap(s->p, MEMORY_SIZE);
	close_fd(s->memory);
	close_fd(s->socket);
	*s = (struct slots)SLOTS_INIT;
}

static ssize_t receive(int fd, void *p, size_t n, int flags)
{
	ssize_t r;

	do
		r = recv(fd, p, n, flags);
	while (r < 0 && errno == EINTR);
	return r;
}

uint8_t *slots_room(struct slots *s)
{
	uint8_t back[SLOTS_COUNT];

	while (s->used == SLOTS_COUNT) {
		ssize_t n = receive(s->socket, back, sizeof(back), 0);

		if (n <= 0)
			return NULL;
		s->used -= (unsigned)n;
	}
	return s->p + (size_t)s->next * SLOT_SIZE;
}

bool slots_pass(struct slots *s, size_t n)
{
	const uint32_t len = (uint32_t)n;

	s->next = (s->next + 1) % SLOTS_COUNT;
	s->used++;
	return send(s->socket, &len, sizeof(len), MSG_NOSIGNAL) == sizeof(len);
}

void slots_end(struct slots *s)
{
	shutdown(s->socket, SHUT_WR);
}

size_t slots_take(struct slots *s, const uint8_t **ret)
{
	uint32_t len;

	/* If the writer has gone, what it passed before is still there. */
	if (s->held)
		(void)!send(s->socket, "", 1, MSG_NOSIGNAL);
	s->held = false;
	if (receive(s->socket, &len, sizeof(len), MSG_WAITALL) != sizeof(len) || len > SLOT_SIZE)
		return 0;
	*ret = s->p + (size_t)s->next * SLOT_SIZE;
	s->next = (s->next + 1) % SLOTS_COUNT;
	s->held = true;
	return len;
}
