//! One flow: how its packets look on either side, what was counted, when it ends.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed};

use crate::checksum;
use crate::clock::AtomicTime;
use crate::packet::{ACK, FIN, FlowKey, Headers, ICMP, ICMPV6, RST, SYN, TCP, UDP};
use crate::peer::{Peer, PeerIndex};

/// How long a flow stays after both sides said FIN.
const FINISHED_IDLE_S: f64 = 5.0;

/// What Python decided; see `_fastpath.pyi` for each field.
#[derive(Debug, Clone, PartialEq)]
pub struct FlowSpec {
    pub flow_id: u64,
    pub peer: PeerIndex,
    pub authorization: u64,
    pub protocol: u8,
    pub inner_source: SocketAddr,
    pub inner_destination: SocketAddr,
    pub host_source: SocketAddr,
    pub host_destination: SocketAddr,
    pub from_peer: bool,
    pub idle_s: f64,
    pub unconfirmed_idle_s: f64,
    pub icmp_reply_first: bool,
}

impl FlowSpec {
    /// The keys of packets from the TUN device and from the peer, or `None` if the addresses' families differ.
    #[must_use]
    pub fn keys(&self) -> Option<(FlowKey, FlowKey)> {
        let is_icmp = matches!(self.protocol, ICMP | ICMPV6);
        let outbound_reply = is_icmp && self.icmp_reply_first;
        let inbound_reply = is_icmp && !self.icmp_reply_first;
        let key = |source, destination, reply| FlowKey::new(self.protocol, source, destination, reply);
        if self.inner_source.is_ipv6() != self.host_source.is_ipv6() {
            return None;
        }
        Some(if self.from_peer {
            (
                key(self.host_destination, self.host_source, inbound_reply)?,
                key(self.inner_source, self.inner_destination, outbound_reply)?,
            )
        } else {
            (
                key(self.host_source, self.host_destination, outbound_reply)?,
                key(self.inner_destination, self.inner_source, inbound_reply)?,
            )
        })
    }
}

/// A flow's figures.
#[derive(Debug, Clone, PartialEq)]
pub struct FlowReport {
    pub spec: FlowSpec,
    pub outbound_packets: u64,
    pub outbound_bytes: u64,
    pub inbound_packets: u64,
    pub inbound_bytes: u64,
    pub created_at: f64,
    pub last_used_at: f64,
    pub finished: &'static str,
}

/// The way of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    Outbound,
    Inbound,
}

#[derive(Default)]
struct Tally {
    packets: AtomicU64,
    bytes: AtomicU64,
}

impl Tally {
    fn get(&self) -> (u64, u64) {
        (self.packets.load(Relaxed), self.bytes.load(Relaxed))
    }
}

pub struct Flow {
    pub spec: FlowSpec,
    pub peer: Arc<Peer>,
    pub tun_key: FlowKey,
    pub peer_key: FlowKey,
    // Boxed, because most flows change nothing.
    to_peer: Option<Box<Rewrite>>,
    to_tun: Option<Box<Rewrite>>,
    outbound: Tally,
    inbound: Tally,
    created_at: f64,
    last_used_at: AtomicTime,
    last_outbound_at: AtomicTime,
    is_confirmed: AtomicBool,
    /// Bit 0: outbound FIN seen; bit 1: inbound.
    fins: AtomicU8,
    is_reset: AtomicBool,
    /// Removed, replaced, or its ports used by a new connection.
    is_gone: AtomicBool,
}

impl Flow {
    /// `None` if the addresses' families differ.
    #[must_use]
    pub fn new(spec: FlowSpec, peer: Arc<Peer>, now: f64) -> Option<Self> {
        let (tun_key, peer_key) = spec.keys()?;
        let (inner, host) = ((spec.inner_source, spec.inner_destination), (spec.host_source, spec.host_destination));
        let (to_peer, to_tun) = if spec.from_peer {
            (Rewrite::new(swap(host), swap(inner)), Rewrite::new(inner, host))
        } else {
            (Rewrite::new(host, inner), Rewrite::new(swap(inner), swap(host)))
        };
        Some(Self {
            spec,
            peer,
            tun_key,
            peer_key,
            to_peer,
            to_tun,
            outbound: Tally::default(),
            inbound: Tally::default(),
            created_at: now,
            last_used_at: AtomicTime::new(now),
            last_outbound_at: AtomicTime::new(now),
            is_confirmed: AtomicBool::new(false),
            fins: AtomicU8::new(0),
            is_reset: AtomicBool::new(false),
            is_gone: AtomicBool::new(false),
        })
    }

    /// Goes on with the figures of the flow that this one replaces.
    #[must_use]
    pub fn continuing(mut self, old: &Flow) -> Self {
        for (new, old) in [(&self.outbound, &old.outbound), (&self.inbound, &old.inbound)] {
            let (packets, bytes) = old.get();
            new.packets.store(packets, Relaxed);
            new.bytes.store(bytes, Relaxed);
        }
        self.created_at = old.created_at;
        self.is_confirmed = AtomicBool::new(old.is_confirmed.load(Relaxed));
        self
    }

    #[must_use]
    pub fn is_live(&self, now: f64) -> bool {
        if self.is_gone.load(Relaxed) || self.is_reset.load(Relaxed) {
            return false;
        }
        let unused_for = now - self.last_used_at.get();
        if self.fins.load(Relaxed) == 3 && unused_for >= FINISHED_IDLE_S {
            return false;
        }
        if self.is_confirmed.load(Relaxed) {
            unused_for < self.spec.idle_s
        } else {
            now - self.last_outbound_at.get() < self.spec.unconfirmed_idle_s
        }
    }

    /// Whether a packet with these headers belongs to this flow and not to a later connection between the same ports.
    #[must_use]
    pub fn admits(&self, headers: &Headers, now: f64) -> bool {
        if !self.is_live(now) {
            return false;
        }
        let starts_anew = headers.tcp_flags & (SYN | ACK) == SYN && self.fins.load(Relaxed) == 3;
        if starts_anew {
            self.mark_gone();
        }
        !starts_anew
    }

    pub fn mark_gone(&self) {
        self.is_gone.store(true, Relaxed);
    }

    #[must_use]
    pub fn to_peer_direction(&self) -> Direction {
        if self.spec.from_peer { Direction::Inbound } else { Direction::Outbound }
    }

    #[must_use]
    pub fn to_tun_direction(&self) -> Direction {
        if self.spec.from_peer { Direction::Outbound } else { Direction::Inbound }
    }

    /// Counts packets and follows the TCP connection's end.
    pub fn note(&self, direction: Direction, packets: usize, bytes: usize, tcp_flags: u8, now: f64) {
        let (tally, fin) = match direction {
            Direction::Outbound => (&self.outbound, 1),
            Direction::Inbound => (&self.inbound, 2),
        };
        tally.packets.fetch_add(packets as u64, Relaxed);
        tally.bytes.fetch_add(bytes as u64, Relaxed);
        self.last_used_at.set(now);
        match direction {
            Direction::Outbound => self.last_outbound_at.set(now),
            Direction::Inbound if !self.is_confirmed.load(Relaxed) => self.is_confirmed.store(true, Relaxed),
            Direction::Inbound => {}
        }
        if tcp_flags & FIN != 0 {
            self.fins.fetch_or(fin, Relaxed);
        }
        if tcp_flags & RST != 0 {
            self.is_reset.store(true, Relaxed);
        }
        self.peer.activity.last_flow_packet_at.set(now);
    }

    /// Makes a packet from the TUN device look as it does inside the tunnel.
    pub fn rewrite_to_peer(&self, packet: &mut [u8], headers: &Headers) {
        if let Some(rewrite) = &self.to_peer {
            rewrite.apply(packet, headers);
        }
    }

    /// Makes a packet from the tunnel look as it does on the TUN device.
    pub fn rewrite_to_tun(&self, packet: &mut [u8], headers: &Headers) {
        if let Some(rewrite) = &self.to_tun {
            rewrite.apply(packet, headers);
        }
    }

    #[must_use]
    pub fn report(&self) -> FlowReport {
        let (outbound_packets, outbound_bytes) = self.outbound.get();
        let (inbound_packets, inbound_bytes) = self.inbound.get();
        FlowReport {
            spec: self.spec.clone(),
            outbound_packets,
            outbound_bytes,
            inbound_packets,
            inbound_bytes,
            created_at: self.created_at,
            last_used_at: self.last_used_at.get(),
            finished: match (self.is_reset.load(Relaxed), self.fins.load(Relaxed)) {
                (true, _) => "rst",
                (false, 3) => "fin",
                _ => "",
            },
        }
    }
}

type Ends = (SocketAddr, SocketAddr);

fn swap((a, b): Ends) -> Ends {
    (b, a)
}

/// New addresses and ports, with what they change about the checksums.
struct Rewrite {
    /// Source and destination as they lie in an IP header; IPv4 uses the first 8 bytes.
    addresses: [u8; 32],
    ports: [u8; 4],
    address_delta: u64,
    port_delta: u64,
    identifier_delta: u64,
}

impl Rewrite {
    /// `None` if nothing changes.
    fn new(old: Ends, new: Ends) -> Option<Box<Self>> {
        if (old.0.ip(), old.1.ip(), old.0.port(), old.1.port()) == (new.0.ip(), new.1.ip(), new.0.port(), new.1.port())
        {
            return None;
        }
        let (old_addresses, new_addresses) = (addresses(old), addresses(new));
        let (old_ports, new_ports) = (ports(old), ports(new));
        Some(Box::new(Self {
            addresses: new_addresses,
            ports: new_ports,
            address_delta: checksum::delta(&old_addresses, &new_addresses),
            port_delta: checksum::delta(&old_ports, &new_ports),
            identifier_delta: checksum::delta(&old_ports[..2], &new_ports[..2]),
        }))
    }

    fn apply(&self, packet: &mut [u8], headers: &Headers) {
        let range = headers.addresses();
        let len = range.len();
        packet[range].copy_from_slice(&self.addresses[..len]);
        if !headers.is_v6 {
            patch(packet, 10, self.address_delta);
        }
        let at = headers.transport;
        match headers.protocol {
            TCP => {
                packet[at..at + 4].copy_from_slice(&self.ports);
                patch(packet, at + 16, self.address_delta + self.port_delta);
            }
            UDP => {
                packet[at..at + 4].copy_from_slice(&self.ports);
                if packet[at + 6..at + 8] != [0, 0] {
                    patch(packet, at + 6, self.address_delta + self.port_delta);
                    if packet[at + 6..at + 8] == [0, 0] {
                        packet[at + 6..at + 8].copy_from_slice(&[0xff, 0xff]);
                    }
                }
            }
            ICMP | ICMPV6 => {
                packet[at + 4..at + 6].copy_from_slice(&self.ports[..2]);
                let addresses = if headers.is_v6 { self.address_delta } else { 0 };
                patch(packet, at + 2, addresses + self.identifier_delta);
            }
            _ => {}
        }
    }
}

fn patch(packet: &mut [u8], at: usize, delta: u64) {
    let field = checksum::apply([packet[at], packet[at + 1]], delta);
    packet[at..at + 2].copy_from_slice(&field);
}

fn addresses((source, destination): Ends) -> [u8; 32] {
    let mut bytes = [0; 32];
    match (source, destination) {
        (SocketAddr::V4(source), SocketAddr::V4(destination)) => {
            bytes[..4].copy_from_slice(&source.ip().octets());
            bytes[4..8].copy_from_slice(&destination.ip().octets());
        }
        (SocketAddr::V6(source), SocketAddr::V6(destination)) => {
            bytes[..16].copy_from_slice(&source.ip().octets());
            bytes[16..].copy_from_slice(&destination.ip().octets());
        }
        _ => unreachable!("FlowSpec::keys refused mixed families"),
    }
    bytes
}

fn ports((source, destination): Ends) -> [u8; 4] {
    let mut bytes = [0; 4];
    bytes[..2].copy_from_slice(&source.port().to_be_bytes());
    bytes[2..].copy_from_slice(&destination.port().to_be_bytes());
    bytes
}
