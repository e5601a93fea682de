//! Packets that missed, once Python has decided: their flows are opened in one go, and each packet passes on its flow.

use std::sync::Arc;

use crate::engine::{Datagram, Engine, datagrams};
use crate::flow::{Flow, Idle, Keys};
use crate::net_path;
use crate::packet::{FlowKey, Headers, PacketError, TCP};
use crate::peer::PeerIndex;
use crate::send_queue::SendQueue;
use crate::tables::Wanted;
use crate::tun_path;
use crate::upcall::Arrival;

/// A packet that no flow knows; without a peer it came from the TUN device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Miss {
    pub peer: Option<PeerIndex>,
    pub packet: Vec<u8>,
    pub arrival: Option<Arrival>,
    pub headers: Headers,
}

impl Miss {
    /// Reads a packet as if it had come in; what follows it is cut off.
    ///
    /// # Errors
    /// If it is of a kind that never becomes an upcall.
    pub fn parse(peer: Option<PeerIndex>, mut packet: Vec<u8>) -> Result<Self, PacketError> {
        let headers = Headers::parse(&packet)?;
        packet.truncate(headers.len);
        Ok(Self { peer, packet, arrival: None, headers })
    }

    /// What the flow that starts with this packet is looked up by; `None` if no flow starts with it, as of ICMP only
    /// proper echo requests open one.
    #[must_use]
    pub fn key(&self) -> Option<FlowKey> {
        self.headers.key.filter(|key| !key.is_echo_reply())
    }
}

/// How long flows live unused, by what they carry.
#[derive(Debug, Clone, Copy)]
pub struct IdleTimes {
    pub tcp_s: f32,
    pub other_s: f32,
    pub unconfirmed_s: f32,
}

/// A packet that may pass.
pub struct Decided<'a> {
    miss: &'a Miss,
    pub(crate) wanted: Wanted,
}

impl<'a> Decided<'a> {
    /// `None` if the packet opens no flow, or `outside` is not how one of this kind can look.
    ///
    /// `outside` is how a packet from a peer is to look on the TUN device, as [`FlowKey::side`] has it; empty if that is
    /// how it came.
    #[must_use]
    pub fn new(miss: &'a Miss, peer: PeerIndex, authorization: u64, outside: &[u8], times: IdleTimes) -> Option<Self> {
        let key = miss.key()?;
        let host = match (miss.peer, outside) {
            (_, []) => key,
            (Some(_), side) => key.moved(side)?,
            (None, _) => return None,
        };
        let confirmed_s = if key.protocol() == TCP { times.tcp_s } else { times.other_s };
        let idle = Idle { confirmed_s, unconfirmed_s: times.unconfirmed_s };
        let keys = Keys::new(key, host, miss.peer.is_some());
        Some(Self { miss, wanted: Wanted { peer, authorization, keys, idle } })
    }
}

/// Why no new flow came of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exception {
    /// Its flow was there already; the packet passed.
    Known,
    /// A table is full.
    Full,
    /// Another flow looks the same on the TUN device.
    Taken,
}

/// What a batch brought.
#[derive(Default)]
pub struct Passed {
    /// For the TUN device.
    pub packets: Vec<Vec<u8>>,
    pub datagrams: Vec<Datagram>,
    /// By position in the batch.
    pub exceptions: Vec<(usize, Exception)>,
}

/// A batch on its way out.
pub(crate) struct Passing {
    pub passed: Passed,
    queue: SendQueue,
}

impl Passing {
    pub fn new() -> Self {
        Self { passed: Passed::default(), queue: SendQueue::new(false) }
    }

    pub fn pass(&mut self, engine: &Engine, flow: &Arc<Flow>, decided: &Decided<'_>, now: f64) {
        let miss = decided.miss;
        let mut packet = miss.packet.clone();
        if miss.peer.is_some() {
            net_path::pass(engine, flow, &miss.headers, &mut packet, now);
            self.passed.packets.push(packet);
        } else {
            tun_path::forward(engine, flow, &miss.headers, None, &mut packet, now, &mut self.queue);
        }
    }

    pub fn finish(mut self) -> Passed {
        self.passed.datagrams = datagrams(&mut self.queue);
        self.passed
    }
}
