/* SPDX-License-Identifier: Apache-2.0 */
#include "net/addr.h"

#include <arpa/inet.h>

#include "base/cleanup.h"

static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};

struct net_addr net_addr_v4(const void *four)
{
	struct net_addr a;

	memcpy(a.b, mapped, sizeof(mapped));
	memcpy(a.b + 12, four, 4);
	return a;
}

struct net_addr net_addr_v6(const void *sixteen)
{
	struct net_addr a;

	memcpy(a.b, sixteen, 16);
	return a;
}

bool net_addr_is_v4(const struct net_addr *a)
{
	return memcmp(a->b, mapped, sizeof(mapped)) == 0;
}

bool net_addr_parse(const char *text, struct net_addr *ret)
{
	struct net_addr a;

	if (inet_pton(AF_INET, text, a.b) == 1) {
		*ret = net_addr_v4(a.b);
		return true;
	}
	if (inet_pton(AF_INET6, text, a.b) != 1)
		return false;
	*ret = a;
	return true;
}

const char *net_addr_text(const struct net_addr *a, char ret[NET_ADDR_TEXT])
{
	bool four = net_addr_is_v4(a);

	return inet_ntop(four ? AF_INET : AF_INET6, four ? net_addr_four(a) : a->b, ret,
			 NET_ADDR_TEXT);
}

bool net_addr_within(const struct net_addr *a, const struct net_addr *prefix, unsigned bits)
{
	unsigned whole = bits / 8, rest = bits % 8;

	if (bits > 128 || memcmp(a->b, prefix->b, whole) != 0)
		return false;
	return !rest || !((a->b[whole] ^ prefix->b[whole]) >> (8 - rest));
}

/* The first that matches counts, so what is inside of another comes before it. */
struct range {
	uint8_t b[16];
	uint8_t bits;
	uint8_t kind;
};

static const struct range ranges4[] = {
	{{169, 254, 169, 254}, 32, NET_METADATA}, /* most clouds */
	{{169, 254, 170, 2}, 32, NET_METADATA},	  /* containers of AWS */
	{{169, 254, 170, 23}, 32, NET_METADATA},  /* pods of AWS */
	{{169, 254, 169, 252}, 32, NET_METADATA}, /* pods of Google */
	{{169, 254, 42, 42}, 32, NET_METADATA},	  /* Scaleway */
	{{169, 254, 0, 23}, 32, NET_METADATA},	  /* Tencent */
	{{169, 254, 10, 10}, 32, NET_METADATA},	  /* Tencent */
	{{100, 100, 100, 200}, 32, NET_METADATA}, /* Alibaba */
	{{168, 63, 129, 16}, 32, NET_METADATA},	  /* Azure's wire server */
	{{192, 0, 0, 192}, 32, NET_METADATA},	  /* Oracle */
	{{0}, 8, NET_LOOPBACK},			  /* this network: 0.0.0.0 is this host to Linux */
	{{10}, 8, NET_PRIVATE},
	{{100, 64}, 10, NET_PRIVATE}, /* shared address space */
	{{127}, 8, NET_LOOPBACK},
	{{169, 254}, 16, NET_LINK_LOCAL},
	{{172, 16}, 12, NET_PRIVATE},
	{{192, 0, 0, 9}, 32, NET_PUBLIC},  /* port control, anycast */
	{{192, 0, 0, 10}, 32, NET_PUBLIC}, /* TURN, anycast */
	{{192, 0, 0}, 24, NET_RESERVED},
	{{192, 0, 2}, 24, NET_RESERVED},   /* documentation */
	{{192, 88, 99}, 24, NET_RESERVED}, /* once 6to4 relays */
	{{192, 168}, 16, NET_PRIVATE},
	{{198, 18}, 15, NET_RESERVED},	    /* benchmarks */
	{{198, 51, 100}, 24, NET_RESERVED}, /* documentation */
	{{203, 0, 113}, 24, NET_RESERVED},  /* documentation */
	{{224}, 4, NET_MULTICAST},
	{{255, 255, 255, 255}, 32, NET_MULTICAST}, /* broadcast */
	{{240}, 4, NET_RESERVED},
};

/* Outside of 2000::/3 nothing is global unicast; inside of it are exceptions. */
static const struct range ranges6[] = {
	{{0xfd, 0, 0x0e, 0xc2, [14] = 2, [15] = 0x54}, 128, NET_METADATA},  /* AWS */
	{{0xfd, 0, 0x0e, 0xc2, [15] = 0x23}, 128, NET_METADATA},	    /* pods of AWS */
	{{0xfd, 0x20, 0, 0xce, [14] = 2, [15] = 0x54}, 128, NET_METADATA},  /* Google */
	{{0xfd, 0, 0, 0xc1, [12] = 169, 254, 169, 254}, 128, NET_METADATA}, /* Oracle */
	{{0xfe, 0x80, [12] = 169, 254, 169, 254}, 128, NET_METADATA},	    /* OpenStack */
	{{0xfd, 0, 169, 254, 169, 254, [15] = 1}, 128, NET_METADATA},	    /* Akamai */
	{{0xfd, 0, 0, 0x42, [15] = 0x42}, 128, NET_METADATA},		    /* Scaleway */
	{{0xfd, 0, 1, 0, [12] = 1, 0, 2, 0}, 128, NET_METADATA},	    /* Alibaba */
	{{0}, 128, NET_LOOPBACK},					    /* to Linux */
	{{[15] = 1}, 128, NET_LOOPBACK},
	{{0xfc}, 7, NET_PRIVATE},
	{{0xfe, 0x80}, 10, NET_LINK_LOCAL},
	{{0xfe, 0xc0}, 10, NET_PRIVATE}, /* site-local, of old */
	{{0xff}, 8, NET_MULTICAST},
	{{0x20, 0x01, 0, 0x01, [15] = 1}, 128, NET_PUBLIC},  /* port control, anycast */
	{{0x20, 0x01, 0, 0x01, [15] = 2}, 128, NET_PUBLIC},  /* TURN, anycast */
	{{0x20, 0x01, 0, 0x01, [15] = 3}, 128, NET_PUBLIC},  /* service registration, anycast */
	{{0x20, 0x01, 0, 0x03}, 32, NET_PUBLIC},	     /* AMT */
	{{0x20, 0x01, 0, 0x04, 0x01, 0x12}, 48, NET_PUBLIC}, /* AS112 */
	{{0x20, 0x01, 0, 0x20}, 28, NET_PUBLIC},	     /* ORCHIDv2 */
	{{0x20, 0x01, 0, 0x30}, 28, NET_PUBLIC},	     /* drone remote ID */
	{{0x20, 0x01}, 23, NET_RESERVED}, /* the rest of IETF's: Teredo, benchmarks, ORCHID */
	{{0x20, 0x01, 0x0d, 0xb8}, 32, NET_RESERVED}, /* documentation */
	{{0x3f, 0xff}, 20, NET_RESERVED},	      /* documentation */
	/* What these carry counts. */
	{{0x00, 0x64, 0xff, 0x9b}, 96, NET_PUBLIC},		/* NAT64 */
	{{0x00, 0x64, 0xff, 0x9b, 0x00, 0x01}, 48, NET_PUBLIC}, /* local NAT64 */
	{{0x20}, 3, NET_PUBLIC},
	{{0}, 0, NET_RESERVED},
};

/* IPv6 addresses that stand for the IPv4 address in their bytes @at. */
static const struct {
	uint8_t b[16];
	uint8_t bits, at;
} carriers[] = {
	{{[8] = 0xff, [9] = 0xff}, 96, 12},		/* translated (SIIT) */
	{{0x00, 0x64, 0xff, 0x9b}, 96, 12},		/* NAT64 */
	{{0x00, 0x64, 0xff, 0x9b, 0x00, 0x01}, 48, 12}, /* local NAT64 */
	{{0x20, 0x02}, 16, 2},				/* 6to4 */
	{{0}, 96, 12},					/* compatible, long deprecated */
};

static bool matches(const uint8_t *a, const uint8_t *prefix, unsigned bits)
{
	struct net_addr x, y;

	memcpy(x.b, a, 16);
	memcpy(y.b, prefix, 16);
	return net_addr_within(&x, &y, bits);
}

static enum net_kind kind4(const uint8_t *four)
{
	uint8_t a[16] = {four[0], four[1], four[2], four[3]};

	for (size_t i = 0; i < ARRAY_SIZE(ranges4); i++) {
		if (matches(a, ranges4[i].b, ranges4[i].bits))
			return (enum net_kind)ranges4[i].kind;
	}
	return NET_PUBLIC;
}

/* Local NAT64 may have a prefix of 48, 56 or 64 bits as well, and the address is elsewhere then. */
static unsigned local_nat64(const uint8_t *b, struct net_addr *ret)
{
	/* RFC 6052, 2.2 */
	static const uint8_t at[][4] = {{6, 7, 9, 10}, {7, 9, 10, 11}, {9, 10, 11, 12}};
	static const uint8_t prefix[] = {0x00, 0x64, 0xff, 0x9b, 0x00, 0x01};
	unsigned n = 0;

	if (memcmp(b, prefix, sizeof(prefix)) != 0)
		return 0;
	for (size_t i = 0; i < ARRAY_SIZE(at); i++) {
		const uint8_t four[] = {b[at[i][0]], b[at[i][1]], b[at[i][2]], b[at[i][3]]};

		/* Zeroes are the rest of a longer prefix. */
		if (four[0])
			ret[n++] = net_addr_v4(four);
	}
	return n;
}

/* Is it an interface's number of ISATAP (RFC 5214, 6.1)? That says nothing of what is before it. */
static bool is_isatap(const uint8_t *b)
{
	return !(b[8] & ~2) && !b[9] && b[10] == 0x5e && b[11] == 0xfe;
}

/* A client behind a server (RFC 4380, 4), its address turned over. */
static unsigned teredo(const uint8_t *b, struct net_addr *ret)
{
	static const uint8_t prefix[] = {0x20, 0x01, 0, 0};
	const uint8_t client[] = {(uint8_t)~b[12], (uint8_t)~b[13], (uint8_t)~b[14],
				  (uint8_t)~b[15]};

	if (memcmp(b, prefix, sizeof(prefix)) != 0)
		return 0;
	ret[0] = net_addr_v4(b + 4);
	ret[1] = net_addr_v4(client);
	return 2;
}

/* :: and ::1 are themselves. */
static bool is_itself(const struct net_addr *a)
{
	static const uint8_t zero[15];

	return memcmp(a->b, zero, sizeof(zero)) == 0 && a->b[15] <= 1;
}

unsigned net_addr_inner(const struct net_addr *a, struct net_addr ret[NET_ADDR_INNER])
{
	unsigned n = local_nat64(a->b, ret);

	n += teredo(a->b, ret + n);
	if (is_isatap(a->b))
		ret[n++] = net_addr_v4(a->b + 12);
	for (size_t c = 0; c < ARRAY_SIZE(carriers) && !is_itself(a); c++) {
		if (matches(a->b, carriers[c].b, carriers[c].bits))
			ret[n++] = net_addr_v4(a->b + carriers[c].at);
	}
	return n;
}

enum net_kind net_addr_kind(const struct net_addr *a)
{
	struct net_addr inner[NET_ADDR_INNER];
	unsigned n = net_addr_inner(a, inner);
	enum net_kind kind;
	size_t i = 0;

	if (net_addr_is_v4(a))
		return kind4(net_addr_four(a));
	while (!matches(a->b, ranges6[i].b, ranges6[i].bits))
		i++;
	kind = (enum net_kind)ranges6[i].kind;
	for (unsigned k = 0; k < n; k++)
		kind = MAX(kind, kind4(net_addr_four(&inner[k])));
	return kind;
}
