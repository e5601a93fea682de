//! A client and a gateway with a tunnel between them, and the flows over it.

use std::net::SocketAddr;
use std::sync::OnceLock;
use std::sync::atomic::Ordering::Relaxed;

use fastpath::counters::Counters;
use fastpath::engine::{Engine, Limits};
use fastpath::flow::{FlowReport, FlowSpec};
use fastpath::noise::{Initiation, Keypair, OpenedInitiation, StaticKey};
use fastpath::peer::{Activity, Path};
use fastpath::tables::Bounds;
use fastpath::upcall::{Signal, Upcall};

use super::wire::{ICMP, ICMPV6, Packet, TCP, UDP};

pub const PEER: u32 = 1;
/// Another peer behind the same address, as two clients of one NAT or relay are.
pub const OTHER: u32 = 2;
pub const MTU: usize = 1280;
const MOST_HANDSHAKES: u8 = 32;

struct Silent;

impl Signal for Silent {
    fn raise(&self) {}
    fn clear(&self) {}
}

/// One flow: its ends as the client's host, the tunnel and the gateway's host know them.
#[derive(Debug, Clone, Copy)]
pub struct Ends {
    pub peer: u32,
    pub protocol: u8,
    pub client: (SocketAddr, SocketAddr),
    pub inner: (SocketAddr, SocketAddr),
    pub gateway: (SocketAddr, SocketAddr),
}

/// Which way packets go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    Up,
    Down,
}

impl Ends {
    /// Source and destination of the packets that the sender's host makes.
    pub fn sent(&self, way: Way) -> (SocketAddr, SocketAddr) {
        match way {
            Way::Up => self.client,
            Way::Down => (self.gateway.1, self.gateway.0),
        }
    }

    /// Source and destination of these packets where they come out.
    pub fn received(&self, way: Way) -> (SocketAddr, SocketAddr) {
        match way {
            Way::Up => self.gateway,
            Way::Down => (self.client.1, self.client.0),
        }
    }

    /// A packet of this flow as it comes out at the other end.
    pub fn translated(&self, way: Way, packet: &Packet) -> Packet {
        let (source, destination) = self.received(way);
        Packet { source, destination, ..packet.clone() }
    }
}

/// All kinds of flows: of each protocol and family, translated at neither, one or both ends.
pub fn all_ends() -> Vec<Ends> {
    let at = |text: &str| -> SocketAddr { text.parse().expect("an address") };
    let flow = |protocol, client: [&str; 2], inner: [&str; 2], gateway: [&str; 2]| Ends {
        peer: PEER,
        protocol,
        client: (at(client[0]), at(client[1])),
        inner: (at(inner[0]), at(inner[1])),
        gateway: (at(gateway[0]), at(gateway[1])),
    };
    let same = |protocol, ends: [&str; 2]| flow(protocol, ends, ends, ends);
    vec![
        same(TCP, ["100.64.0.1:40000", "10.9.0.2:443"]),
        flow(
            TCP,
            ["100.64.0.1:40001", "100.96.0.7:80"],
            ["100.64.0.1:40001", "100.96.0.7:80"],
            ["100.64.0.1:51001", "10.9.0.3:80"],
        ),
        flow(
            UDP,
            ["192.0.2.5:5353", "100.96.0.8:53"],
            ["100.64.0.1:6000", "100.96.0.8:53"],
            ["100.64.0.1:6000", "10.9.0.4:5300"],
        ),
        same(TCP, ["[fd00:2021::1]:40000", "[fd00:9::2]:443"]),
        flow(
            TCP,
            ["[fd00:2021::1]:40002", "[fd00:8::7]:80"],
            ["[fd00:2021::1]:40002", "[fd00:8::7]:80"],
            ["[fd00:2021::1]:40002", "[fd00:9::3]:80"],
        ),
        same(UDP, ["[fd00:2021::1]:5000", "[fd00:9::2]:5000"]),
        flow(
            ICMP,
            ["100.64.0.1:77", "100.96.0.7:77"],
            ["100.64.0.1:77", "100.96.0.7:77"],
            ["100.64.0.1:900", "10.9.0.3:900"],
        ),
        same(ICMPV6, ["[fd00:2021::1]:77", "[fd00:9::2]:77"]),
        Ends { peer: OTHER, ..same(TCP, ["100.64.0.9:40000", "10.9.0.2:443"]) },
        Ends { peer: OTHER, ..same(UDP, ["[fd00:2021::9]:5000", "[fd00:9::2]:5000"]) },
    ]
}

/// Two engines that are told the same things in the same order.
pub struct World {
    pub client: Engine,
    pub gateway: Engine,
    /// How many there were of each peer.
    handshakes: [usize; 2],
}

impl World {
    pub fn new() -> Self {
        let mut world = Self { client: engine(), gateway: engine(), handshakes: [0, 0] };
        world.rekey(PEER, 0.0);
        world.rekey(OTHER, 0.0);
        world.go(None);
        for number in 0..all_ends().len() {
            world.install(number, 0.0);
        }
        world
    }

    /// A new handshake, if any is left; the gateway seals with it once it was used.
    pub fn rekey(&mut self, peer: u32, now: f64) {
        let count = &mut self.handshakes[usize::from(peer == OTHER)];
        let Some((of_client, of_gateway)) = keys().get(2 * *count + usize::from(peer == OTHER)) else { return };
        *count += 1;
        self.client.add_session(peer, of_client, now, 180.0).expect("the index is new");
        self.gateway.add_session(peer, of_gateway, now, 180.0).expect("the index is new");
        let keepalive = self.client.seal(peer, b"", now, true).expect("a session");
        let none = self.gateway.handle_datagram(address(Side::Gateway), address(Side::Client), &keepalive, now);
        assert!(none.is_empty());
    }

    /// Sets the path: direct, or by channel data of a relay.
    pub fn go(&self, channel: Option<u16>) {
        for (engine, to) in [(&self.client, Side::Gateway), (&self.gateway, Side::Client)] {
            let remote = if channel.is_some() { relay() } else { address(to) };
            engine.set_path(PEER, Path { local: None, remote, channel }).expect("the peer is known");
            engine.set_path(OTHER, Path { local: None, remote, channel }).expect("the peer is known");
            engine.add_channel(relay(), 0x4005);
        }
    }

    pub fn install(&self, number: usize, now: f64) {
        let ends = all_ends()[number];
        let spec = |from_peer, host| FlowSpec {
            flow_id: number as u64,
            peer: ends.peer,
            authorization: number as u64 % 2,
            protocol: ends.protocol,
            inner_source: ends.inner.0,
            inner_destination: ends.inner.1,
            host_source: ends.host(host).0,
            host_destination: ends.host(host).1,
            from_peer,
            idle_s: 60.0,
            unconfirmed_idle_s: 60.0,
            icmp_reply_first: false,
        };
        self.client.add_flow(spec(false, Side::Client), now).expect("families agree");
        self.gateway.add_flow(spec(true, Side::Gateway), now).expect("families agree");
    }

    /// Who sends and who receives.
    pub fn engines(&self, way: Way) -> (&Engine, &Engine) {
        match way {
            Way::Up => (&self.client, &self.gateway),
            Way::Down => (&self.gateway, &self.client),
        }
    }
}

impl Ends {
    fn host(&self, side: Side) -> (SocketAddr, SocketAddr) {
        match side {
            Side::Client => self.client,
            Side::Gateway => self.gateway,
        }
    }
}

#[derive(Clone, Copy)]
pub enum Side {
    Client,
    Gateway,
}

pub fn address(side: Side) -> SocketAddr {
    match side {
        Side::Client => ([203, 0, 113, 2], 52625).into(),
        Side::Gateway => ([198, 51, 100, 2], 52625).into(),
    }
}

pub fn relay() -> SocketAddr {
    ([192, 0, 2, 9], 3478).into()
}

pub fn engine() -> Engine {
    let tables = Bounds { peers: 8, flows: 64, flows_per_peer: 64 };
    Engine::new(Limits { tables, upcalls: 100_000, upcalls_per_peer: 50_000, mtu: MTU }, Box::new(Silent))
}

/// The keys of all handshakes, made once: a case would spend its time on nothing else.
fn keys() -> &'static [(Keypair, Keypair)] {
    static KEYS: OnceLock<Vec<(Keypair, Keypair)>> = OnceLock::new();
    KEYS.get_or_init(|| (1..=MOST_HANDSHAKES).map(keypairs).collect())
}

fn keypairs(number: u8) -> (Keypair, Keypair) {
    let (a, b) = (StaticKey::new([1; 32]), StaticKey::new([2; 32]));
    let (of_client, of_gateway) = (u32::from(number) << 8 | 1, u32::from(number) << 8 | 2);
    let (mut initiation, message) =
        Initiation::start(&a, &b.public_key(), &[7; 32], of_client, &[9; 12], [number; 32]).expect("keys agree");
    let mut opened = OpenedInitiation::open(&b, &message).expect("it is for b");
    let (response, keys_of_b) = opened.respond(&[7; 32], of_gateway, [number ^ 0x80; 32]).expect("not answered yet");
    (initiation.finish(&response).expect("it answers"), keys_of_b)
}

/// All that an engine tells of itself.
#[derive(Debug, PartialEq)]
pub struct Account {
    pub upcalls: Vec<Upcall>,
    pub flows: Vec<FlowReport>,
    pub counters: Vec<(&'static str, u64)>,
    pub activity: Vec<f64>,
}

pub fn account(engine: &Engine) -> Account {
    Account {
        upcalls: engine.ring.poll(usize::MAX),
        flows: engine.flows(0, usize::MAX),
        // How many are taken at once is the batches' own affair.
        counters: Counters::each(&engine.counters).filter(|(name, _)| *name != "datagrams_opened_together").collect(),
        activity: [PEER, OTHER]
            .into_iter()
            .filter_map(|peer| engine.peer(peer))
            .flat_map(|peer| activity(&peer.activity))
            .collect(),
    }
}

fn activity(of: &Activity) -> Vec<f64> {
    let times = [
        &of.last_data_sent_at,
        &of.last_data_received_at,
        &of.last_sent_at,
        &of.last_received_at,
        &of.first_unanswered_at,
        &of.last_flow_packet_at,
    ];
    let figures = [&of.sent_packets, &of.sent_bytes, &of.received_packets, &of.received_bytes];
    let figures = figures.into_iter().map(|figure| figure.load(Relaxed) as f64);
    times.into_iter().map(|time| time.get()).chain(figures).collect()
}

/// Compares piece by piece, so that a failure tells what differs and no more.
pub fn assert_same_accounts(batched: &Account, single: &Account) {
    assert_eq!(batched.upcalls.len(), single.upcalls.len(), "upcalls");
    assert!(batched.upcalls == single.upcalls, "upcalls differ");
    for (of_batched, of_single) in batched.counters.iter().zip(&single.counters) {
        assert_eq!(of_batched, of_single);
    }
    assert_eq!(batched.flows.len(), single.flows.len(), "flows");
    for (of_batched, of_single) in batched.flows.iter().zip(&single.flows) {
        assert_eq!(of_batched, of_single);
    }
    assert_eq!(batched.activity, single.activity, "activity");
}
