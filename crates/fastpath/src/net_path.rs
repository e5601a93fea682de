//! From the network to the TUN device: datagrams sorted out, opened in place in runs, rewritten, and gathered for the write.

use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;

use wide_aead::LANES;

use crate::coalesce::Coalescer;
use crate::counters::{add, count};
use crate::engine::Engine;
use crate::flow::Flow;
use crate::install::Miss;
use crate::packet::{Headers, mark_congestion};
use crate::peer::{Peer, PeerIndex};
use crate::session::{HEADER_LEN, OpenError, Session, TAG_LEN, receiver_index};
use crate::tables::Channels;
use crate::tun_path::CHANNEL_HEADER_LEN;
use crate::upcall::{Arrival, SessionEvent, Upcall};

const CONGESTION_EXPERIENCED: u8 = 3;

/// A packet for the TUN device, in the arena that it came in.
struct Opened {
    start: usize,
    headers: Headers,
    flow: Arc<Flow>,
}

/// What one thread keeps between datagrams, and the packets that wait to be written.
#[derive(Default)]
pub struct Receiver {
    last_session: Option<Arc<Session>>,
    last_flow: Option<Arc<Flow>>,
    packets: Vec<Opened>,
    waiting: Waiting,
}

/// Messages of one session and one length that are to be opened together.
#[derive(Default)]
struct Waiting {
    index: u32,
    len: usize,
    count: usize,
    starts: [usize; LANES],
    /// The channels they came by.
    channels: [Option<u16>; LANES],
}

impl Waiting {
    /// Whether a message may join them.
    fn admits(&self, index: u32, len: usize) -> bool {
        self.count == 0 || (self.count < LANES && (self.index, self.len) == (index, len))
    }

    fn push(&mut self, index: u32, len: usize, start: usize, channel: Option<u16>) {
        (self.index, self.len) = (index, len);
        (self.starts[self.count], self.channels[self.count]) = (start, channel);
        self.count += 1;
    }
}

/// Where a run of equal-sized datagrams came from.
struct Source {
    local: SocketAddr,
    remote: SocketAddr,
    ecn: u8,
    channels: Option<Channels>,
}

/// What one run carried for its peer.
#[derive(Default)]
struct Run {
    peer: Option<Arc<Peer>>,
    packets: usize,
    bytes: usize,
}

impl Run {
    fn flush(&mut self, engine: &Engine, now: f64) {
        if let Some(peer) = self.peer.take() {
            peer.note_received(self.packets, self.bytes, now);
            engine.wake(&peer);
        }
        (self.packets, self.bytes) = (0, 0);
    }
}

impl Receiver {
    /// Handles one receive: `range` of `arena` holds datagrams of `stride` bytes each, the last one perhaps shorter.
    #[allow(clippy::too_many_arguments)] // they are one system call's result
    pub fn handle(
        &mut self,
        engine: &Engine,
        local: SocketAddr,
        remote: SocketAddr,
        ecn: u8,
        arena: &mut [u8],
        range: Range<usize>,
        stride: usize,
        now: f64,
    ) {
        let channels = engine.read().relays.get(&remote).cloned();
        let source = Source { local, remote, ecn, channels };
        let mut run = Run::default();
        let mut start = range.start;
        loop {
            let end = start.saturating_add(stride.max(1)).min(range.end);
            self.handle_datagram(engine, &source, arena, start..end, &mut run, now);
            start = end;
            if start >= range.end {
                break;
            }
        }
        self.open_waiting(engine, &source, arena, &mut run, now);
        run.flush(engine, now);
    }

    fn handle_datagram(
        &mut self,
        engine: &Engine,
        source: &Source,
        arena: &mut [u8],
        range: Range<usize>,
        run: &mut Run,
        now: f64,
    ) {
        let datagram = &arena[range.clone()];
        let mut channel = None;
        let mut message = range.clone();
        if let (Some(channels), Some(0x40..=0x4f)) = (&source.channels, datagram.first()) {
            match channel_data(datagram) {
                Some(number) if channels.contains(&number) => channel = Some(number),
                Some(_) => return count(&engine.counters.datagrams_unknown_channel),
                None => return count(&engine.counters.channel_data_malformed),
            }
            message.start += CHANNEL_HEADER_LEN;
        }
        match receiver_index(&arena[message.clone()]) {
            Some(index) => {
                if !self.waiting.admits(index, message.len()) {
                    self.open_waiting(engine, source, arena, run, now);
                }
                self.waiting.push(index, message.len(), message.start, channel);
            }
            None if matches!(arena[message].first(), Some(4)) => count(&engine.counters.datagrams_malformed),
            None => {
                self.open_waiting(engine, source, arena, run, now);
                let payload = arena[range].to_vec();
                engine.push(Upcall::Datagram { local: source.local, remote: source.remote, payload });
            }
        }
    }

    /// Opens the messages that wait, and handles what is in them, in order.
    fn open_waiting(&mut self, engine: &Engine, source: &Source, arena: &mut [u8], run: &mut Run, now: f64) {
        let Waiting { index, len, count: waiting, starts, channels } = std::mem::take(&mut self.waiting);
        if waiting == 0 {
            return;
        }
        let Some(session) = self.session(engine, index) else {
            return add(&engine.counters.datagrams_unknown_session, waiting);
        };
        let starts = &starts[..waiting];
        if session.opens_together(waiting, len) {
            add(&engine.counters.datagrams_opened_together, waiting);
        }
        let outcomes = session.open_run(arena, starts, len, now);
        for ((start, outcome), channel) in starts.iter().zip(outcomes).zip(channels) {
            let packet = start + HEADER_LEN..start + len - TAG_LEN;
            let arrival = Arrival { local: source.local, remote: source.remote, channel };
            match outcome {
                Ok(()) => self.handle_opened(engine, &session, arrival, source.ecn, arena, packet, run, now),
                Err(OpenError::Expired) => count(&engine.counters.datagrams_expired_session),
                Err(OpenError::NotAuthentic) => count(&engine.counters.datagrams_not_authentic),
                Err(OpenError::Replayed) => count(&engine.counters.datagrams_replayed),
            }
        }
    }

    #[allow(clippy::too_many_arguments)] // a step of open_waiting
    fn handle_opened(
        &mut self,
        engine: &Engine,
        session: &Arc<Session>,
        arrival: Arrival,
        ecn: u8,
        arena: &mut [u8],
        range: Range<usize>,
        run: &mut Run,
        now: f64,
    ) {
        if session.confirm() {
            session.peer.elect_at(now);
            let (peer, local_index) = (session.peer.index, session.local_index);
            engine.push(Upcall::Session { event: SessionEvent::Confirmed, peer, local_index });
        }
        if run.peer.as_ref().is_none_or(|peer| !Arc::ptr_eq(peer, &session.peer)) {
            run.flush(engine, now);
            run.peer = Some(Arc::clone(&session.peer));
        }
        if range.is_empty() {
            return count(&engine.counters.keepalives_received);
        }
        run.packets += 1;
        run.bytes += range.len();
        let packet = &mut arena[range.clone()];
        if ecn == CONGESTION_EXPERIENCED && Headers::parse(packet).is_ok() {
            mark_congestion(packet);
        }
        self.handle_packet(engine, session.peer.index, Some(arrival), arena, range, now);
    }

    fn session(&mut self, engine: &Engine, index: u32) -> Option<Arc<Session>> {
        if let Some(session) = &self.last_session
            && session.local_index == index
            && !session.is_removed()
        {
            return Some(Arc::clone(session));
        }
        self.last_session = engine.read().sessions.get(&index).cloned();
        self.last_session.clone()
    }

    /// A packet of a peer that was opened before, alone in `arena`.
    pub fn handle_inner(&mut self, engine: &Engine, peer: PeerIndex, arena: &mut [u8], now: f64) {
        self.handle_packet(engine, peer, None, arena, 0..arena.len(), now);
    }

    fn handle_packet(
        &mut self,
        engine: &Engine,
        peer: PeerIndex,
        arrival: Option<Arrival>,
        arena: &mut [u8],
        range: Range<usize>,
        now: f64,
    ) {
        let packet = &mut arena[range.clone()];
        let headers = match Headers::parse(packet) {
            Ok(headers) => headers,
            Err(error) => return engine.count_refused(error),
        };
        if headers.len > engine.mtu {
            return count(&engine.counters.packets_too_long);
        }
        let packet = &mut packet[..headers.len];
        let Some(flow) = self.flow(engine, peer, &headers, now) else {
            let miss = Miss { peer: Some(peer), packet: packet.to_vec(), arrival, headers };
            return engine.push(Upcall::Packet(miss));
        };
        pass(engine, &flow, &headers, packet, now);
        self.packets.push(Opened { start: range.start, headers, flow });
    }

    fn flow(&mut self, engine: &Engine, peer: PeerIndex, headers: &Headers, now: f64) -> Option<Arc<Flow>> {
        let key = headers.key?;
        if let Some(flow) = &self.last_flow
            && flow.keys.peer == key
            && flow.peer.index == peer
            && flow.admits(headers, now)
        {
            return Some(Arc::clone(flow));
        }
        self.last_flow = engine.read().flow_from_peer(peer, &key).filter(|flow| flow.admits(headers, now)).cloned();
        self.last_flow.clone()
    }

    /// Moves the waiting packets into `coalescer`.
    pub fn drain_into(&mut self, arena: &[u8], coalescer: &mut Coalescer) {
        for Opened { start, headers, flow } in self.packets.drain(..) {
            coalescer.push(arena, start, &headers, Arc::as_ptr(&flow) as usize);
        }
    }

    /// Takes the waiting packets as copies.
    pub fn take_packets(&mut self, arena: &[u8]) -> Vec<Vec<u8>> {
        self.packets.drain(..).map(|one| arena[one.start..one.start + one.headers.len].to_vec()).collect()
    }
}

/// Makes a peer's packet look as it does on the TUN device, and counts it.
pub(crate) fn pass(engine: &Engine, flow: &Flow, headers: &Headers, packet: &mut [u8], now: f64) {
    flow.note(flow.to_tun_direction(), 1, headers.len, headers.tcp_flags, now);
    flow.rewrite_to_tun(packet, headers);
    add(&engine.counters.packets_opened, 1);
    add(&engine.counters.bytes_opened, headers.len);
}

/// The number of a channel data message whose length is exactly right.
fn channel_data(datagram: &[u8]) -> Option<u16> {
    let (header, rest) = datagram.split_first_chunk::<CHANNEL_HEADER_LEN>()?;
    let len = u16::from_be_bytes([header[2], header[3]]);
    (usize::from(len) == rest.len()).then(|| u16::from_be_bytes([header[0], header[1]]))
}
