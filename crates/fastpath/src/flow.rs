//! One flow: how its packets look on either side, what was counted, when it ends.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

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
    pub fn keys(&self) -> Option<Keys> {
        let is_reply = matches!(self.protocol, ICMP | ICMPV6) && self.icmp_reply_first;
        let key = |source, destination| FlowKey::new(self.protocol, source, destination, is_reply);
        let inner = key(self.inner_source, self.inner_destination)?;
        let host = key(self.host_source, self.host_destination)?;
        (self.inner_source.is_ipv6() == self.host_source.is_ipv6()).then(|| Keys::new(inner, host, self.from_peer))
    }
}

/// How packets of a flow look where they come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keys {
    pub tun: FlowKey,
    pub peer: FlowKey,
    pub from_peer: bool,
}

impl Keys {
    /// The keys of a flow whose outbound packets look like `inner` in the tunnel and like `host` on the TUN device.
    #[must_use]
    pub fn new(inner: FlowKey, host: FlowKey, from_peer: bool) -> Self {
        if from_peer {
            Self { tun: host.reversed(), peer: inner, from_peer }
        } else {
            Self { tun: host, peer: inner.reversed(), from_peer }
        }
    }

    /// How outbound packets look in the tunnel.
    #[must_use]
    pub fn inner(&self) -> FlowKey {
        if self.from_peer { self.peer } else { self.peer.reversed() }
    }

    /// How outbound packets look on the TUN device.
    #[must_use]
    pub fn host(&self) -> FlowKey {
        if self.from_peer { self.tun.reversed() } else { self.tun }
    }
}

/// How long a flow lives unused, in seconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Idle {
    pub confirmed_s: f32,
    pub unconfirmed_s: f32,
}

/// A flow's figures.
#[derive(Debug, Clone, PartialEq)]
pub struct FlowReport {
    pub flow_id: u64,
    pub peer: PeerIndex,
    pub authorization: u64,
    pub keys: Keys,
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

/// Flows that a FIN or a RST ended, for whoever looks for dead ones; packets add to it, so it is locked by itself.
#[derive(Default)]
pub struct Ended(Mutex<Vec<u64>>);

impl Ended {
    fn push(&self, flow_id: u64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(flow_id);
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    pub fn take(&self) -> Vec<u64> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// One flow. There are hundreds of thousands, so what can be told from the keys is not kept.
pub struct Flow {
    pub id: u64,
    pub peer: Arc<Peer>,
    pub authorization: u64,
    pub keys: Keys,
    is_confirmed: AtomicBool,
    /// Bit 0: outbound FIN seen; bit 1: inbound.
    fins: AtomicU8,
    is_reset: AtomicBool,
    /// Removed, replaced, or its ports used by a new connection.
    is_gone: AtomicBool,
    is_translated: bool,
    to_peer: Rewrite,
    to_tun: Rewrite,
    idle: Idle,
    outbound: Tally,
    inbound: Tally,
    created_at: f64,
    last_used_at: AtomicTime,
    last_outbound_at: AtomicTime,
}

impl Flow {
    #[must_use]
    pub fn new(id: u64, peer: Arc<Peer>, authorization: u64, keys: Keys, idle: Idle, now: f64) -> Self {
        let is_translated = keys.tun != keys.peer.reversed();
        let (to_peer, to_tun) =
            (Rewrite::new(&keys.tun, &keys.peer.reversed()), Rewrite::new(&keys.peer, &keys.tun.reversed()));
        Self {
            id,
            peer,
            authorization,
            keys,
            is_confirmed: AtomicBool::new(false),
            fins: AtomicU8::new(0),
            is_reset: AtomicBool::new(false),
            is_gone: AtomicBool::new(false),
            is_translated,
            idle,
            to_peer,
            to_tun,
            outbound: Tally::default(),
            inbound: Tally::default(),
            created_at: now,
            last_used_at: AtomicTime::new(now),
            last_outbound_at: AtomicTime::new(now),
        }
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
        now < self.dies_at()
    }

    /// When it is over if no packet comes until then.
    #[must_use]
    pub fn dies_at(&self) -> f64 {
        if self.is_gone.load(Relaxed) || self.is_reset.load(Relaxed) {
            return f64::NEG_INFINITY;
        }
        let used_at = self.last_used_at.get();
        let dies_at = if self.is_confirmed.load(Relaxed) {
            used_at + f64::from(self.idle.confirmed_s)
        } else {
            self.last_outbound_at.get() + f64::from(self.idle.unconfirmed_s)
        };
        if self.fins.load(Relaxed) == 3 { dies_at.min(used_at + FINISHED_IDLE_S) } else { dies_at }
    }

    /// When to ask again whether it is over, unless a FIN or a RST comes: what is confirmed later may have less time.
    #[must_use]
    pub fn check_at(&self, now: f64) -> f64 {
        let dies_at = self.dies_at();
        let is_confirmed = self.is_confirmed.load(Relaxed);
        if is_confirmed { dies_at } else { dies_at.min(now + f64::from(self.idle.confirmed_s)) }
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
        if self.keys.from_peer { Direction::Inbound } else { Direction::Outbound }
    }

    #[must_use]
    pub fn to_tun_direction(&self) -> Direction {
        if self.keys.from_peer { Direction::Outbound } else { Direction::Inbound }
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
        if tcp_flags & (FIN | RST) != 0 {
            self.note_end(tcp_flags, fin);
        }
        self.peer.activity.last_flow_packet_at.set(now);
    }

    #[cold]
    fn note_end(&self, tcp_flags: u8, fin: u8) {
        let was_over = self.is_reset.load(Relaxed) || self.fins.load(Relaxed) == 3;
        if tcp_flags & FIN != 0 {
            self.fins.fetch_or(fin, Relaxed);
        }
        if tcp_flags & RST != 0 {
            self.is_reset.store(true, Relaxed);
        }
        if !was_over && (tcp_flags & RST != 0 || self.fins.load(Relaxed) == 3) {
            self.peer.ended.push(self.id);
        }
    }

    /// Makes a packet from the TUN device look as it does inside the tunnel.
    pub fn rewrite_to_peer(&self, packet: &mut [u8], headers: &Headers) {
        if self.is_translated {
            self.to_peer.apply(packet, headers, &self.keys.peer.reversed());
        }
    }

    /// Makes a packet from the tunnel look as it does on the TUN device.
    pub fn rewrite_to_tun(&self, packet: &mut [u8], headers: &Headers) {
        if self.is_translated {
            self.to_tun.apply(packet, headers, &self.keys.tun.reversed());
        }
    }

    /// Packets and bytes, outbound and inbound.
    #[must_use]
    pub fn figures(&self) -> [u64; 4] {
        let ((outbound_packets, outbound_bytes), (inbound_packets, inbound_bytes)) =
            (self.outbound.get(), self.inbound.get());
        [outbound_packets, outbound_bytes, inbound_packets, inbound_bytes]
    }

    #[must_use]
    pub fn report(&self) -> FlowReport {
        let [outbound_packets, outbound_bytes, inbound_packets, inbound_bytes] = self.figures();
        FlowReport {
            flow_id: self.id,
            peer: self.peer.index,
            authorization: self.authorization,
            keys: self.keys,
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

/// What another look changes about a packet's checksums.
#[derive(Debug, Clone, Copy)]
struct Rewrite {
    addresses: u16,
    ports: u16,
    identifier: u16,
}

impl Rewrite {
    /// For packets that look like `old` and are to look like `new`.
    fn new(old: &FlowKey, new: &FlowKey) -> Self {
        let delta = |old: &[u8], new: &[u8]| checksum::fold(checksum::delta(old, new));
        Self {
            addresses: delta(&old.address_bytes(), &new.address_bytes()),
            ports: delta(&old.port_bytes(), &new.port_bytes()),
            identifier: delta(&old.port_bytes()[..2], &new.port_bytes()[..2]),
        }
    }

    /// Makes a packet look like `new`.
    fn apply(self, packet: &mut [u8], headers: &Headers, new: &FlowKey) {
        let range = headers.addresses();
        let len = range.len();
        packet[range].copy_from_slice(&new.address_bytes()[..len]);
        if !headers.is_v6 {
            patch(packet, 10, u64::from(self.addresses));
        }
        let at = headers.transport;
        let both = u64::from(self.addresses) + u64::from(self.ports);
        match headers.protocol {
            TCP => {
                packet[at..at + 4].copy_from_slice(&new.port_bytes());
                patch(packet, at + 16, both);
            }
            UDP => {
                packet[at..at + 4].copy_from_slice(&new.port_bytes());
                if packet[at + 6..at + 8] != [0, 0] {
                    patch(packet, at + 6, both);
                    if packet[at + 6..at + 8] == [0, 0] {
                        packet[at + 6..at + 8].copy_from_slice(&[0xff, 0xff]);
                    }
                }
            }
            ICMP | ICMPV6 => {
                packet[at + 4..at + 6].copy_from_slice(&new.port_bytes()[..2]);
                let addresses = if headers.is_v6 { u64::from(self.addresses) } else { 0 };
                patch(packet, at + 2, addresses + u64::from(self.identifier));
            }
            _ => {}
        }
    }
}

fn patch(packet: &mut [u8], at: usize, delta: u64) {
    let field = checksum::apply([packet[at], packet[at + 1]], delta);
    packet[at..at + 2].copy_from_slice(&field);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flow_is_small() {
        assert!(size_of::<Flow>() <= 184, "{}", size_of::<Flow>());
    }
}
