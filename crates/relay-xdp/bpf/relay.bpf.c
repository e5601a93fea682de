// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/*
 * Forwards the datagrams of known channels before the network stack sees them. All else is passed on to it, unchanged.
 *
 * One rule holds everywhere: whatever is not perfectly ordinary is for user space. So every test comes before the first
 * change of the frame, and nothing is ever dropped. Source: RFC 8656, sections 12 and 14; docs/decisions/0009-*.md.
 *
 * Self-contained: the few structures and helpers of the kernel's interface that it needs are declared here. Addresses
 * and ports are in network byte order throughout; the checksum's arithmetic does not care.
 */

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#define SECTION(name) __attribute__((section(name), used))
#define INLINE static inline __attribute__((always_inline))
#define swap16(x) ((u16)__builtin_bswap16(x))
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define net16(x) swap16(x)
#else
#define net16(x) ((u16)(x))
#endif

/* --- the kernel's interface -------------------------------------------------------------------------------------- */

enum { XDP_ABORTED, XDP_DROP, XDP_PASS, XDP_TX, XDP_REDIRECT };
enum { MAP_HASH = 1, MAP_PERCPU_ARRAY = 6, NO_PREALLOC = 1 };
enum { INET = 2, INET6 = 10, UDP = 17 };
enum { ROUTE_FOUND = 0, ROUTE_TOO_BIG = 8 };

struct xdp_md {
	u32 data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex;
};

struct bpf_map_def {
	u32 type, key_size, value_size, max_entries, map_flags;
};

struct bpf_fib_lookup {
	u8 family, l4_protocol;
	u16 sport, dport, tot_len;
	u32 ifindex;
	u32 tos;
	u32 src[4], dst[4];
	u32 vlan;
	u8 smac[6], dmac[6];
};

static void *(*const map_lookup)(const void *map, const void *key) = (void *)1;
static long (*const redirect)(u32 ifindex, u64 flags) = (void *)23;
static long (*const adjust_head)(struct xdp_md *ctx, int delta) = (void *)44;
static long (*const fib_lookup)(struct xdp_md *ctx, struct bpf_fib_lookup *params, int size, u32 flags) = (void *)69;

/* --- headers ----------------------------------------------------------------------------------------------------- */

struct eth {
	u8 destination[6], source[6];
	u16 protocol;
};

struct ipv4 {
	u8 version_length, tos;
	u16 total_length, id, fragment;
	u8 ttl, protocol;
	u16 check;
	u32 source, destination;
};

struct ipv6 {
	u32 version_class_label;
	u16 payload_length;
	u8 next_header, hop_limit;
	u32 source[4], destination[4];
};

struct udp {
	u16 source, destination, length, check;
};

struct channel_header {
	u16 number, length;
};

_Static_assert(sizeof(struct eth) == 14 && sizeof(struct ipv4) == 20 && sizeof(struct ipv6) == 40, "no holes");
_Static_assert(sizeof(struct bpf_fib_lookup) == 64, "as the kernel has it");

#define MIN_FRAME 60
#define DONT_FRAGMENT net16(0x4000)

/* --- shared with user space: src/layout.rs ----------------------------------------------------------------------- */

/* One address for each family; zero if it is not served. Frames to others are not ours. */
struct config {
	u32 own6[4];
	u32 own4;
	u32 lookup_ifindex; /* whose routes: the loopback's, which are those of what the host itself sends */
	u16 listen_port;
	u8 may_redirect;
	u8 zero[5];
};
volatile const struct config config SECTION(".rodata") = { 0 };

/* Who sent a datagram to us: a client, with its channel's number; or a peer, with the allocation's port. */
struct sender {
	u32 address[4];
	u16 port, other;
	u32 family;
};

/* Where its payload goes: to a peer, from the allocation's port; or to a client, with its channel's number. */
struct target {
	u32 address[4];
	u16 port, other;
	u8 family;
	u8 is_here; /* the peer is another allocation of this relay */
	u16 zero;
	u64 packets, bytes;
};

_Static_assert(sizeof(struct config) == 32 && sizeof(struct sender) == 24 && sizeof(struct target) == 40, "no holes");

enum counter {
	FORWARDED_TO_PEER,
	FORWARDED_TO_CLIENT,
	PASSED_OTHER,   /* not UDP to our address, or for many */
	PASSED_CONTROL, /* to the listening port, and no channel data: STUN */
	PASSED_UNKNOWN, /* of no channel that is known here */
	PASSED_UNUSUAL, /* fragments, options, no whole checksum, padding, lengths that do not agree, a short frame,
	                 * one for another host */
	PASSED_TOO_BIG, /* for the next hop's link, once it is wrapped */
	PASSED_ROUTE,   /* no route, or a neighbour that is not known yet */
	ERRORS,         /* no room to grow in front */
	COUNTERS,
	OK = COUNTERS,
};

struct bpf_map_def by_client SECTION("maps") = {
	MAP_HASH, sizeof(struct sender), sizeof(struct target), 262144, NO_PREALLOC,
};
struct bpf_map_def by_peer SECTION("maps") = {
	MAP_HASH, sizeof(struct sender), sizeof(struct target), 262144, NO_PREALLOC,
};
struct bpf_map_def counters SECTION("maps") = {
	MAP_PERCPU_ARRAY, sizeof(u32), sizeof(u64), COUNTERS, 0,
};

/* --- the program ------------------------------------------------------------------------------------------------- */

struct packet {
	u32 source[4], destination[4];
	u16 source_port, destination_port;
	u16 check;      /* UDP's */
	u16 udp_length; /* host byte order */
	u8 family, tos, ttl;
	u16 id, fragment, ip_check; /* IPv4 alone */
};

/* Sums in ones' complement: words of any size may be added, and subtracted as their complement. */
INLINE u16 fold(u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return (u16)(sum + (sum >> 16));
}

INLINE u64 sum_address(const u32 *address)
{
	return (u64)address[0] + address[1] + address[2] + address[3];
}

INLINE u16 replaced(u16 check, u64 removed, u64 added)
{
	return (u16)~fold((u64)(u16)~check + (u16)~fold(removed) + added);
}

/* What of a UDP datagram's checksum is not its payload; its length counts twice, in the pseudo header too. */
INLINE u64 sum_headers(const struct packet *packet)
{
	return sum_address(packet->source) + sum_address(packet->destination) + packet->source_port +
	       packet->destination_port + 2 * (u64)net16(packet->udp_length);
}

INLINE int count(u32 which)
{
	u64 *counter = map_lookup(&counters, &which);

	if (counter)
		*counter += 1;
	return XDP_PASS;
}

INLINE u32 parse4(struct packet *packet, const struct ipv4 *ip, const void *end)
{
	const u32 *words = (const void *)ip;
	u64 sum = 0;

	if ((const void *)(ip + 1) > end || ip->protocol != UDP || !config.own4 || ip->destination != config.own4)
		return PASSED_OTHER;
	if (ip->version_length != 0x45 || (ip->fragment & ~DONT_FRAGMENT & 0xffff))
		return PASSED_UNUSUAL;
	for (int i = 0; i < 5; i++)
		sum += words[i];
	if (fold(sum) != 0xffff)
		return PASSED_UNUSUAL;
	packet->family = INET;
	packet->source[0] = ip->source;
	packet->destination[0] = ip->destination;
	packet->tos = ip->tos;
	packet->ttl = ip->ttl;
	packet->id = ip->id;
	packet->fragment = ip->fragment;
	packet->ip_check = ip->check;
	packet->udp_length = net16(ip->total_length) - sizeof(*ip);
	return OK;
}

INLINE u32 parse6(struct packet *packet, const struct ipv6 *ip, const void *end)
{
	u32 own = 0, any = 0;

	if ((const void *)(ip + 1) > end || ip->next_header != UDP)
		return PASSED_OTHER;
	for (int i = 0; i < 4; i++) {
		any |= config.own6[i];
		own |= config.own6[i] ^ ip->destination[i];
		packet->source[i] = ip->source[i];
		packet->destination[i] = ip->destination[i];
	}
	if (!any || own)
		return PASSED_OTHER;
	packet->family = INET6;
	packet->tos = (u8)(net16(*(const u16 *)ip) >> 4);
	packet->ttl = ip->hop_limit;
	packet->udp_length = net16(ip->payload_length);
	return OK;
}

/* The UDP header, and whether all lengths agree, so that the frame ends where the datagram does. */
INLINE u32 parse_udp(struct packet *packet, const struct udp *udp, const void *end)
{
	u32 length = packet->udp_length;
	u64 pseudo;

	if ((const void *)(udp + 1) > end)
		return PASSED_UNUSUAL;
	if (udp->length != net16(length) || length < sizeof(*udp) || length > 0xffff - sizeof(struct ipv4))
		return PASSED_UNUSUAL;
	if ((const void *)udp + length > end || (const void *)udp + length + 1 <= end)
		return PASSED_UNUSUAL;
	packet->source_port = udp->source;
	packet->destination_port = udp->destination;
	packet->check = udp->check;
	/* Without a checksum there is nothing to update. One that covers the pseudo header alone is a local sender's,
	 * whose device is to do the rest; such a frame may even stand for many datagrams. */
	pseudo = sum_address(packet->source) + sum_address(packet->destination) + net16(UDP) + net16(length);
	if (!udp->check || udp->check == fold(pseudo) || !udp->source)
		return PASSED_UNUSUAL;
	return OK;
}

INLINE struct target *find(const void *map, const u32 *address, u16 port, u16 other, u32 family)
{
	struct sender sender = {
		.address = { address[0], address[1], address[2], address[3] },
		.port = port,
		.other = other,
		.family = family,
	};

	return map_lookup(map, &sender);
}

/* A change of one datagram into another: what is taken from it, what is put in front. */
struct plan {
	struct target *target, *also; /* `also` is the other half, if both ends are here */
	u32 unwrap, wrap;
	struct channel_header old; /* if unwrapped */
};

INLINE u32 make_plan(struct plan *plan, const struct packet *packet, const struct udp *udp, const void *end)
{
	const struct channel_header *header = (const void *)(udp + 1);
	struct target *target;

	if (packet->destination_port != config.listen_port) {
		plan->wrap = sizeof(*header);
		plan->target = find(&by_peer, packet->source, packet->source_port, packet->destination_port, packet->family);
		return plan->target ? OK : PASSED_UNKNOWN;
	}
	if ((const void *)(header + 1) > end || packet->udp_length < sizeof(*udp) + sizeof(*header))
		return PASSED_CONTROL;
	plan->old = *header;
	if ((net16(plan->old.number) & 0xc000) != 0x4000)
		return PASSED_CONTROL;
	if (net16(plan->old.length) != packet->udp_length - sizeof(*udp) - sizeof(*header))
		return PASSED_UNUSUAL;
	plan->unwrap = sizeof(*header);
	target = find(&by_client, packet->source, packet->source_port, plan->old.number, packet->family);
	if (target && target->is_here) {
		/* What the other allocation would receive, without the detour. */
		plan->wrap = sizeof(*header);
		plan->also = target;
		target = find(&by_peer, target->address, target->other, target->port, target->family);
	}
	plan->target = target;
	return target ? OK : PASSED_UNKNOWN;
}

/* The headers of what goes out. */
INLINE u32 fill_headers(struct packet *out, const struct packet *in, const struct plan *plan)
{
	const struct target *target = plan->target;
	u32 size;

	for (int i = 0; i < 4; i++) {
		out->destination[i] = target->address[i];
		out->source[i] = target->family == INET6 ? config.own6[i] : 0;
	}
	if (target->family == INET)
		out->source[0] = config.own4;
	if (!(out->source[0] | out->source[1] | out->source[2] | out->source[3]))
		return PASSED_ROUTE;
	out->family = target->family;
	out->destination_port = target->port;
	out->source_port = plan->wrap ? config.listen_port : target->other;
	out->udp_length = in->udp_length - plan->unwrap + plan->wrap;
	out->tos = in->tos;
	out->ttl = in->ttl - 1;
	out->id = in->family == INET ? in->id : 0;
	out->fragment = in->family == INET ? in->fragment : DONT_FRAGMENT;
	if (in->ttl <= 1)
		return PASSED_UNUSUAL;
	size = sizeof(struct eth) + (out->family == INET ? sizeof(struct ipv4) : sizeof(struct ipv6)) + out->udp_length;
	if (size < MIN_FRAME)
		return PASSED_UNUSUAL;
	return OK;
}

INLINE int is_same(const u8 *one, const u8 *other)
{
	const u16 *a = (const void *)one, *b = (const void *)other;

	return a[0] == b[0] && a[1] == b[1] && a[2] == b[2];
}

INLINE u32 find_route(struct xdp_md *ctx, struct bpf_fib_lookup *route, const struct packet *out, const struct eth *eth)
{
	long found;

	route->family = out->family;
	route->l4_protocol = UDP;
	route->sport = out->source_port;
	route->dport = out->destination_port;
	route->tot_len = out->udp_length + (out->family == INET ? sizeof(struct ipv4) : sizeof(struct ipv6));
	route->ifindex = config.lookup_ifindex;
	for (int i = 0; i < 4; i++) {
		route->src[i] = out->source[i];
		route->dst[i] = out->destination[i];
	}
	found = fib_lookup(ctx, route, sizeof(*route), 0);
	if (found == ROUTE_TOO_BIG)
		return PASSED_TOO_BIG;
	if (found != ROUTE_FOUND)
		return PASSED_ROUTE;
	/* A switch that floods shows us frames for others. */
	if (route->ifindex == ctx->ingress_ifindex)
		return is_same(eth->destination, route->smac) ? OK : PASSED_UNUSUAL;
	return config.may_redirect ? OK : PASSED_ROUTE;
}

INLINE void write_eth(struct eth *eth, const struct bpf_fib_lookup *route, u8 family)
{
	__builtin_memcpy(eth->destination, route->dmac, 6);
	__builtin_memcpy(eth->source, route->smac, 6);
	eth->protocol = family == INET ? net16(0x0800) : net16(0x86dd);
}

/* Each word of the header that differs, replaced; between families there is no former header. */
INLINE void write4(struct ipv4 *ip, const struct packet *in, const struct packet *out)
{
	u16 length = net16(out->udp_length + sizeof(*ip)), old_length = net16(in->udp_length + sizeof(*ip));
	u64 added = (u64)out->source[0] + out->destination[0] + length + net16(out->ttl << 8 | UDP);
	u64 removed = (u64)in->source[0] + in->destination[0] + old_length + net16(in->ttl << 8 | UDP);

	ip->version_length = 0x45;
	ip->tos = out->tos;
	ip->total_length = length;
	ip->id = out->id;
	ip->fragment = out->fragment;
	ip->ttl = out->ttl;
	ip->protocol = UDP;
	ip->source = out->source[0];
	ip->destination = out->destination[0];
	if (in->family == INET)
		ip->check = replaced(in->ip_check, removed, added);
	else
		ip->check = (u16)~fold(added + net16(0x4500 | out->tos) + out->id + out->fragment);
}

INLINE void write6(struct ipv6 *ip, const struct packet *out)
{
	*(u16 *)ip = net16(0x6000 | out->tos << 4);
	*((u16 *)ip + 1) = 0;
	ip->payload_length = net16(out->udp_length);
	ip->next_header = UDP;
	ip->hop_limit = out->ttl;
	for (int i = 0; i < 4; i++) {
		ip->source[i] = out->source[i];
		ip->destination[i] = out->destination[i];
	}
}

INLINE int write_udp(struct udp *udp, const void *end, const struct packet *in, const struct packet *out,
		     const struct plan *plan)
{
	struct channel_header *header = (void *)(udp + 1);
	u64 removed = sum_headers(in), added = sum_headers(out);
	u16 check;

	if ((void *)(udp + 1) > end)
		return 0;
	if (plan->unwrap)
		removed += (u64)plan->old.number + plan->old.length;
	if (plan->wrap) {
		if ((void *)(header + 1) > end)
			return 0;
		header->number = plan->target->other;
		header->length = net16(out->udp_length - sizeof(*udp) - sizeof(*header));
		added += (u64)header->number + header->length;
	}
	check = replaced(in->check, removed, added);
	udp->source = out->source_port;
	udp->destination = out->destination_port;
	udp->length = net16(out->udp_length);
	udp->check = check ? check : 0xffff;
	return 1;
}

INLINE void count_traffic(struct target *target, u64 bytes)
{
	__sync_fetch_and_add(&target->packets, 1);
	__sync_fetch_and_add(&target->bytes, bytes);
}

SECTION("xdp") int relay(struct xdp_md *ctx)
{
	void *data = (void *)(u64)ctx->data, *end = (void *)(u64)ctx->data_end;
	struct packet in = { 0 }, out = { 0 };
	struct bpf_fib_lookup route = { 0 };
	struct plan plan = { 0 };
	struct eth *eth = data;
	struct udp *udp;
	u32 outcome, old_size, new_size;

	if ((void *)(eth + 1) > end || (eth->destination[0] & 1))
		return count(PASSED_OTHER);
	if (eth->protocol == net16(0x0800)) {
		outcome = parse4(&in, (void *)(eth + 1), end);
		old_size = sizeof(struct ipv4);
	} else if (eth->protocol == net16(0x86dd)) {
		outcome = parse6(&in, (void *)(eth + 1), end);
		old_size = sizeof(struct ipv6);
	} else {
		return count(PASSED_OTHER);
	}
	if (outcome != OK)
		return count(outcome);
	udp = (void *)(eth + 1) + old_size;
	if ((outcome = parse_udp(&in, udp, end)) != OK || (outcome = make_plan(&plan, &in, udp, end)) != OK ||
	    (outcome = fill_headers(&out, &in, &plan)) != OK || (outcome = find_route(ctx, &route, &out, eth)) != OK)
		return count(outcome);

	new_size = out.family == INET ? sizeof(struct ipv4) : sizeof(struct ipv6);
	if (adjust_head(ctx, (int)(old_size + plan.unwrap) - (int)(new_size + plan.wrap)))
		return count(ERRORS);
	data = (void *)(u64)ctx->data;
	end = (void *)(u64)ctx->data_end;
	if (data + sizeof(*eth) + new_size > end)
		return XDP_ABORTED; /* never: the new size was looked at before */
	write_eth(data, &route, out.family);
	if (out.family == INET) {
		if (data + sizeof(*eth) + sizeof(struct ipv4) > end)
			return XDP_ABORTED;
		write4(data + sizeof(*eth), &in, &out);
	} else {
		if (data + sizeof(*eth) + sizeof(struct ipv6) > end)
			return XDP_ABORTED;
		write6(data + sizeof(*eth), &out);
	}
	if (!write_udp(data + sizeof(*eth) + new_size, end, &in, &out, &plan))
		return XDP_ABORTED;

	count(plan.wrap ? FORWARDED_TO_CLIENT : FORWARDED_TO_PEER);
	u64 payload = out.udp_length - sizeof(*udp) - plan.wrap;
	count_traffic(plan.target, payload);
	if (plan.also)
		count_traffic(plan.also, payload);
	return route.ifindex == ctx->ingress_ifindex ? XDP_TX : (int)redirect(route.ifindex, 0);
}

/* What the kernel is told: bpf_fib_lookup is for programs that may be had under the GPL, as this one may. */
char program_license[] SECTION("license") = "GPL";
