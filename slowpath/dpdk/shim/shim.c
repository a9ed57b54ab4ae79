/*
 * The C half of shunt-dpdk: DPDK's inline functions and configuration structs
 * stay on this side. Rust sees plain integers, opaque pointers, and the first
 * cache line of an mbuf, whose layout the assertions below pin.
 *
 * Functions that can fail return 0 or a negative errno.
 */
#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <rte_bus_vdev.h>
#include <rte_cycles.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_eth_ring.h>
#include <rte_ethdev.h>
#include <rte_ether.h>
#include <rte_lcore.h>
#include <rte_log.h>
#include <rte_mbuf.h>
#include <rte_mbuf_pool_ops.h>
#include <rte_mempool.h>
#include <rte_ring.h>

#define PIN(field, offset, size)                                                \
	_Static_assert(offsetof(struct rte_mbuf, field) == (offset), #field " moved"); \
	_Static_assert(sizeof(((struct rte_mbuf *)0)->field) == (size), #field " resized")

/* struct RawMbuf of src/ffi.rs */
PIN(buf_addr, 0, 8);
PIN(data_off, 16, 2);
PIN(refcnt, 18, 2);
PIN(nb_segs, 20, 2);
PIN(port, 22, 2);
PIN(ol_flags, 24, 8);
PIN(packet_type, 32, 4);
PIN(pkt_len, 36, 4);
PIN(data_len, 40, 2);
PIN(vlan_tci, 42, 2);
PIN(buf_len, 54, 2);
PIN(pool, 56, 8);
_Static_assert(RTE_PKTMBUF_HEADROOM == 128, "headroom of src/pool.rs");
#ifndef RTE_MBUF_REFCNT_ATOMIC
#error "mbufs are freed on any thread"
#endif
_Static_assert(RTE_MAX_ETHPORTS <= 64, "MAX_PORTS of src/port.rs");

/* A negative errno, also where DPDK returned a bare -1. */
static int
failed(int ret)
{
	if (ret < -1)
		return ret;
	return rte_errno > 0 ? -rte_errno : -EIO;
}

/* ---- EAL ---- */

int
shunt_eal_init(int argc, char **argv)
{
	rte_errno = 0;
	if (rte_eal_init(argc, argv) < 0)
		return failed(-1);
	/* By default DPDK logs to syslog as well; shunt's log is its stderr. */
	rte_openlog_stream(stderr);
	return 0;
}

const char *
shunt_runtime_dir(void)
{
	return rte_eal_get_runtime_dir();
}

int
shunt_vdev_init(const char *name, const char *args)
{
	rte_errno = 0;
	int ret = rte_vdev_init(name, args);
	return ret < 0 ? failed(ret) : 0;
}

int
shunt_vdev_uninit(const char *name)
{
	rte_errno = 0;
	int ret = rte_vdev_uninit(name);
	return ret < 0 ? failed(ret) : 0;
}

int
shunt_thread_is_registered(void)
{
	return rte_lcore_id() != LCORE_ID_ANY;
}

int
shunt_thread_register(void)
{
	rte_errno = 0;
	return rte_thread_register() < 0 ? failed(-1) : 0;
}

void
shunt_thread_unregister(void)
{
	rte_thread_unregister();
}

uint64_t
shunt_tsc(void)
{
	return rte_rdtsc();
}

uint64_t
shunt_tsc_hz(void)
{
	return rte_get_tsc_hz();
}

/* ---- pools and mbufs ---- */

/*
 * `contiguous`: objects within one page of IOVA space, as DMA needs. Without
 * hugepages that spends a page an mbuf; software ports never look at IOVAs, so
 * for them the objects are packed.
 */
int
shunt_pool_create(const char *name, unsigned count, unsigned cache, uint16_t data_room,
		  int contiguous, struct rte_mempool **out)
{
	struct rte_pktmbuf_pool_private priv = { .mbuf_data_room_size = data_room };
	struct rte_mempool *mp;
	int ret;

	rte_errno = 0;
	if (contiguous) {
		mp = rte_pktmbuf_pool_create(name, count, cache, 0, data_room, SOCKET_ID_ANY);
		if (mp == NULL)
			return failed(-1);
		*out = mp;
		return 0;
	}
	mp = rte_mempool_create_empty(name, count, sizeof(struct rte_mbuf) + data_room, cache,
				      sizeof(priv), SOCKET_ID_ANY, RTE_MEMPOOL_F_NO_IOVA_CONTIG);
	if (mp == NULL)
		return failed(-1);
	ret = rte_mempool_set_ops_byname(mp, rte_mbuf_best_mempool_ops(), NULL);
	if (ret == 0) {
		rte_pktmbuf_pool_init(mp, &priv);
		ret = rte_mempool_populate_default(mp);
	}
	if (ret < 0) {
		ret = failed(ret);
		rte_mempool_free(mp);
		return ret;
	}
	rte_mempool_obj_iter(mp, rte_pktmbuf_init, NULL);
	*out = mp;
	return 0;
}

unsigned
shunt_pool_available(const struct rte_mempool *mp)
{
	return rte_mempool_avail_count(mp);
}

/* All or nothing: 0, or negative when the pool has fewer than `n`. */
int
shunt_alloc_bulk(struct rte_mempool *mp, struct rte_mbuf **out, unsigned n)
{
	return rte_pktmbuf_alloc_bulk(mp, out, n);
}

void
shunt_free_bulk(struct rte_mbuf **mbufs, unsigned n)
{
	rte_pktmbuf_free_bulk(mbufs, n);
}

/* ---- bursts ---- */

#define NOT_PLAIN \
	(RTE_MBUF_F_RX_VLAN_STRIPPED | RTE_MBUF_F_INDIRECT | RTE_MBUF_F_EXTERNAL)

/* net_null sets whatever length it was configured with. */
static inline int
fits(const struct rte_mbuf *m)
{
	return (uint32_t)m->data_off + m->data_len <= m->buf_len && m->pkt_len == m->data_len;
}

/* Makes one contiguous frame, tag included, or says that it cannot. */
static __rte_noinline int
flatten(struct rte_mbuf **slot)
{
	struct rte_mbuf *m = *slot;

	if ((m->ol_flags & (RTE_MBUF_F_INDIRECT | RTE_MBUF_F_EXTERNAL)) != 0 ||
	    rte_mbuf_refcnt_read(m) != 1)
		return -1;
	if (m->nb_segs != 1 && rte_pktmbuf_linearize(m) != 0)
		return -1;
	if ((m->ol_flags & RTE_MBUF_F_RX_VLAN_STRIPPED) != 0 && rte_vlan_insert(slot) != 0)
		return -1;
	return (*slot)->nb_segs == 1 && fits(*slot) ? 0 : -1;
}

/*
 * Every mbuf handed to Rust is direct, unshared and one segment. What cannot be
 * made so is freed and counted in `dropped`.
 */
uint16_t
shunt_rx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **out, uint16_t n, uint64_t *dropped)
{
	uint16_t got = rte_eth_rx_burst(port, queue, out, n);
	uint16_t kept = 0;

	for (uint16_t i = 0; i < got; i++) {
		struct rte_mbuf *m = out[i];

		if (unlikely(m->nb_segs != 1 || (m->ol_flags & NOT_PLAIN) != 0 ||
			     rte_mbuf_refcnt_read(m) != 1 || !fits(m))) {
			if (flatten(&m) != 0) {
				rte_pktmbuf_free(m);
				(*dropped)++;
				continue;
			}
		}
		out[kept++] = m;
	}
	return kept;
}

uint16_t
shunt_tx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **mbufs, uint16_t n)
{
	return rte_eth_tx_burst(port, queue, mbufs, n);
}

/* ---- ports ---- */

struct shunt_port_config {
	uint16_t rx_queues;
	uint16_t tx_queues;
	uint16_t rx_descriptors;
	uint16_t tx_descriptors;
	uint16_t mtu; /* 0: leave it */
	uint16_t promiscuous;
};

struct shunt_port_stats {
	uint64_t rx_packets;
	uint64_t tx_packets;
	uint64_t rx_bytes;
	uint64_t tx_bytes;
	uint64_t rx_missed;
	uint64_t rx_errors;
	uint64_t tx_errors;
	uint64_t rx_no_mbuf;
};

int
shunt_port_by_name(const char *name, uint16_t *port)
{
	return rte_eth_dev_get_port_by_name(name, port);
}

int
shunt_port_max_queues(uint16_t port, uint16_t *rx, uint16_t *tx)
{
	struct rte_eth_dev_info info;
	int ret = rte_eth_dev_info_get(port, &info);

	if (ret != 0)
		return ret;
	*rx = info.max_rx_queues;
	*tx = info.max_tx_queues;
	return 0;
}

/* `step` names what failed, for the message. */
int
shunt_port_start(uint16_t port, const struct shunt_port_config *c, struct rte_mempool *mp,
		 const char **step)
{
	struct rte_eth_conf conf;
	uint16_t rxd = c->rx_descriptors, txd = c->tx_descriptors;
	int ret;

	memset(&conf, 0, sizeof(conf));
	*step = "configure";
	ret = rte_eth_dev_configure(port, c->rx_queues, c->tx_queues, &conf);
	if (ret < 0)
		return ret;
	*step = "adjust the descriptor counts";
	ret = rte_eth_dev_adjust_nb_rx_tx_desc(port, &rxd, &txd);
	if (ret < 0)
		return ret;
	if (c->mtu != 0) {
		*step = "set the MTU";
		ret = rte_eth_dev_set_mtu(port, c->mtu);
		if (ret < 0)
			return ret;
	}
	*step = "set up an rx queue";
	for (uint16_t q = 0; q < c->rx_queues; q++) {
		ret = rte_eth_rx_queue_setup(port, q, rxd, SOCKET_ID_ANY, NULL, mp);
		if (ret < 0)
			return ret;
	}
	*step = "set up a tx queue";
	for (uint16_t q = 0; q < c->tx_queues; q++) {
		ret = rte_eth_tx_queue_setup(port, q, txd, SOCKET_ID_ANY, NULL);
		if (ret < 0)
			return ret;
	}
	*step = "start";
	ret = rte_eth_dev_start(port);
	if (ret < 0)
		return ret;
	if (c->promiscuous) {
		*step = "enter promiscuous mode";
		ret = rte_eth_promiscuous_enable(port);
		/* net_null and net_ring see every frame and know no such mode. */
		if (ret < 0 && ret != -ENOTSUP)
			return ret;
	}
	return 0;
}

int
shunt_port_stop(uint16_t port)
{
	return rte_eth_dev_stop(port);
}

int
shunt_port_close(uint16_t port)
{
	return rte_eth_dev_close(port);
}

int
shunt_port_stats(uint16_t port, struct shunt_port_stats *out)
{
	struct rte_eth_stats s;
	int ret = rte_eth_stats_get(port, &s);

	if (ret != 0)
		return ret;
	out->rx_packets = s.ipackets;
	out->tx_packets = s.opackets;
	out->rx_bytes = s.ibytes;
	out->tx_bytes = s.obytes;
	out->rx_missed = s.imissed;
	out->rx_errors = s.ierrors;
	out->tx_errors = s.oerrors;
	out->rx_no_mbuf = s.rx_nombuf;
	return 0;
}

int
shunt_port_mac(uint16_t port, uint8_t out[6])
{
	struct rte_ether_addr mac;
	int ret = rte_eth_macaddr_get(port, &mac);

	if (ret == 0)
		memcpy(out, mac.addr_bytes, sizeof(mac.addr_bytes));
	return ret;
}

/* ---- in-process rings ---- */

/* One producer, one consumer; `depth` is exact and need not be a power of two. */
int
shunt_ring_create(const char *name, unsigned depth, struct rte_ring **out)
{
	rte_errno = 0;
	*out = rte_ring_create(name, depth, SOCKET_ID_ANY,
			       RING_F_SP_ENQ | RING_F_SC_DEQ | RING_F_EXACT_SZ);
	return *out == NULL ? failed(-1) : 0;
}

void
shunt_ring_free(struct rte_ring *r)
{
	rte_ring_free(r);
}

unsigned
shunt_ring_enqueue(struct rte_ring *r, struct rte_mbuf **mbufs, unsigned n)
{
	return rte_ring_enqueue_burst(r, (void **)mbufs, n, NULL);
}

unsigned
shunt_ring_dequeue(struct rte_ring *r, struct rte_mbuf **mbufs, unsigned n)
{
	return rte_ring_dequeue_burst(r, (void **)mbufs, n, NULL);
}

int
shunt_port_from_rings(const char *name, struct rte_ring **rx, struct rte_ring **tx, unsigned n)
{
	rte_errno = 0;
	return rte_eth_from_rings(name, rx, n, tx, n, 0) < 0 ? failed(-1) : 0;
}
