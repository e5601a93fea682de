//! Sessions, paths and flows of one process, behind one face that any thread may use.
//!
//! Lookups take a shared lock for the time of a hash lookup; what they find stays usable without it and says itself when
//! it was removed.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::counters::{Counters, add, count};
use crate::flow::{FlowReport, FlowSpec};
use crate::install::{Decided, Exception, Passed, Passing};
use crate::net_path::Receiver;
use crate::noise::Keypair;
use crate::packet::{FlowKey, PacketError};
use crate::peer::{Path, Peer, PeerIndex};
use crate::send_queue::SendQueue;
use crate::session::{OVERHEAD, Session};
use crate::tables::{Bounds, Installed, Refusal, TableError, Tables};
use crate::tun_path::FromTun;
use crate::upcall::{Ring, SessionEvent, Signal, Upcall};
use crate::virtio::VnetHeader;

/// Sizes of an engine's tables and queues.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub tables: Bounds,
    pub upcalls: usize,
    pub upcalls_per_peer: usize,
    pub mtu: usize,
}

pub struct Engine {
    tables: RwLock<Tables>,
    pub ring: Ring,
    pub counters: Counters,
    pub mtu: usize,
}

/// A datagram to send: source, destination, payload.
pub type Datagram = (Option<SocketAddr>, SocketAddr, Vec<u8>);

impl Engine {
    #[must_use]
    pub fn new(limits: Limits, signal: Box<dyn Signal>) -> Self {
        Self {
            tables: RwLock::new(Tables::new(limits.tables)),
            ring: Ring::new(limits.upcalls, limits.upcalls_per_peer, signal),
            counters: Counters::default(),
            mtu: limits.mtu,
        }
    }

    // A panic under the lock would be a bug of ours; traffic goes on with the tables as they are.
    pub(crate) fn read(&self) -> RwLockReadGuard<'_, Tables> {
        self.tables.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Tables> {
        self.tables.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Installs a session; the oldest of more than eight of a peer goes.
    ///
    /// # Errors
    /// If its index is taken or the peer is one too many.
    pub fn add_session(
        &self,
        peer: PeerIndex,
        keys: &Keypair,
        now: f64,
        initiator_stops_after_s: f64,
    ) -> Result<(), TableError> {
        let mut tables = self.write();
        if tables.sessions.contains_key(&keys.local_index) {
            return Err(TableError::IndexTaken);
        }
        let peer = tables.peer(peer)?;
        let session = Arc::new(Session::new(keys, Arc::clone(&peer), now, initiator_stops_after_s));
        tables.sessions.insert(keys.local_index, Arc::clone(&session));
        if let Some(evicted) = peer.add_session(session, now) {
            tables.sessions.remove(&evicted.local_index);
        }
        Ok(())
    }

    pub fn remove_session(&self, local_index: u32) -> bool {
        let removed = self.write().sessions.remove(&local_index);
        if let Some(session) = &removed {
            session.mark_removed();
            session.peer.remove_session(local_index);
        }
        removed.is_some()
    }

    /// Sets where a peer's datagrams go.
    ///
    /// # Errors
    /// If the peer is one too many.
    pub fn set_path(&self, peer: PeerIndex, path: Path) -> Result<(), TableError> {
        self.write().peer(peer)?.set_path(Some(path));
        Ok(())
    }

    pub fn clear_path(&self, peer: PeerIndex) {
        if let Some(entry) = self.read().peers.get(&peer) {
            entry.peer.set_path(None);
        }
    }

    pub fn remove_peer(&self, peer: PeerIndex) -> Vec<FlowReport> {
        let reports = self.write().remove_peer(peer);
        add(&self.counters.flows_removed, reports.len());
        reports
    }

    pub fn add_relay(&self, relay: SocketAddr) {
        self.write().relays.entry(relay).or_default();
    }

    pub fn remove_relay(&self, relay: SocketAddr) {
        self.write().relays.remove(&relay);
    }

    pub fn add_channel(&self, relay: SocketAddr, channel: u16) {
        Arc::make_mut(self.write().relays.entry(relay).or_default()).insert(channel);
    }

    pub fn remove_channel(&self, relay: SocketAddr, channel: u16) {
        if let Some(channels) = self.write().relays.get_mut(&relay) {
            Arc::make_mut(channels).remove(&channel);
        }
    }

    /// Adds a flow and returns whether it was accepted; refusals are counted.
    ///
    /// # Errors
    /// If the peer is one too many, or the addresses are of different families.
    pub fn add_flow(&self, spec: FlowSpec, now: f64) -> Result<bool, TableError> {
        let outcome = self.write().add_flow(spec, now)?;
        count(match outcome {
            Ok(()) => &self.counters.flows_added,
            Err(Refusal::Bound) => &self.counters.flows_refused_bound,
            Err(Refusal::Taken) => &self.counters.flows_refused_taken,
        });
        Ok(outcome.is_ok())
    }

    pub fn remove_flow(&self, flow_id: u64) -> Option<FlowReport> {
        let report = self.write().remove_flow(flow_id);
        add(&self.counters.flows_removed, usize::from(report.is_some()));
        report
    }

    pub fn remove_flows(&self, peer: PeerIndex, authorization: Option<u64>) -> Vec<FlowReport> {
        let reports = self.write().remove_flows(peer, authorization);
        add(&self.counters.flows_removed, reports.len());
        reports
    }

    /// Opens the flows of packets that missed and passes each packet on its flow; refusals are counted.
    pub fn install(&self, decided: &[Decided<'_>], now: f64) -> Passed {
        let installed: Vec<_> = {
            let mut tables = self.write();
            decided.iter().map(|one| tables.install(one.wanted, now)).collect()
        };
        let mut passing = Passing::new();
        for (position, (one, outcome)) in decided.iter().zip(installed).enumerate() {
            let (counter, exception) = match &outcome {
                Ok(Installed::Added(_)) => (&self.counters.flows_added, None),
                Ok(Installed::Known(_)) => (&self.counters.flows_known, Some(Exception::Known)),
                Ok(Installed::Refused(Refusal::Taken)) => (&self.counters.flows_refused_taken, Some(Exception::Taken)),
                Ok(Installed::Refused(Refusal::Bound)) | Err(_) => {
                    (&self.counters.flows_refused_bound, Some(Exception::Full))
                }
            };
            count(counter);
            passing.passed.exceptions.extend(exception.map(|what| (position, what)));
            if let Ok(Installed::Added(flow) | Installed::Known(flow)) = outcome {
                passing.pass(self, &flow, one, now);
            }
        }
        passing.finish()
    }

    /// Removes flows that are over and returns their figures.
    pub fn expire_flows(&self, now: f64, limit: usize) -> Vec<FlowReport> {
        let reports = self.write().expire(now, limit);
        add(&self.counters.flows_expired, reports.len());
        reports
    }

    /// Flows with a greater id than `after`, the lowest first.
    #[must_use]
    pub fn flows(&self, after: u64, limit: usize) -> Vec<FlowReport> {
        self.read().reports(after, limit)
    }

    /// The flow whose outbound packets look like this on the TUN device.
    #[must_use]
    pub fn flow_by_host(&self, host: &FlowKey, from_peer: bool) -> Option<FlowReport> {
        let key = if from_peer { host.reversed() } else { *host };
        let flow = self.read().flow_from_tun(&key).cloned()?;
        (flow.keys.from_peer == from_peer).then(|| flow.report())
    }

    /// Packets and bytes of the flows that are there, outbound and inbound, by authorization.
    #[must_use]
    pub fn traffic(&self) -> HashMap<u64, [u64; 4]> {
        let mut totals: HashMap<u64, [u64; 4]> = HashMap::new();
        for flow in self.read().flows() {
            let total = totals.entry(flow.authorization).or_default();
            for (sum, more) in total.iter_mut().zip(flow.figures()) {
                *sum += more;
            }
        }
        totals
    }

    #[must_use]
    pub fn flow_count(&self) -> usize {
        self.read().flow_count()
    }

    #[must_use]
    pub fn peer(&self, peer: PeerIndex) -> Option<Arc<Peer>> {
        self.read().peers.get(&peer).map(|entry| Arc::clone(&entry.peer))
    }

    /// A data message around `packet`, or `None` if no session can seal. What expects no answer does not count as
    /// unanswered.
    #[must_use]
    pub fn seal(&self, peer: PeerIndex, packet: &[u8], now: f64, expects_answer: bool) -> Option<Vec<u8>> {
        let peer = self.peer(peer)?;
        let session = peer.sending(now)?;
        let counter = self.take_counters(&session, 1)?;
        let mut message = vec![0; packet.len() + OVERHEAD];
        message[16..16 + packet.len()].copy_from_slice(packet);
        session.seal(counter, &mut message);
        if expects_answer || packet.is_empty() {
            peer.note_sent(1, packet.len(), now);
        } else {
            peer.note_answered(packet.len(), now);
        }
        Some(message)
    }

    /// Has the next data that a peer sends or gets told as a session event, once.
    pub fn sleep(&self, peer: PeerIndex) {
        if let Some(peer) = self.peer(peer) {
            peer.sleep();
        }
    }

    /// Tells that data of a peer moved, if that was wanted.
    pub(crate) fn wake(&self, peer: &Peer) {
        if peer.wakes() {
            self.push(Upcall::Session { event: SessionEvent::Woken, peer: peer.index, local_index: 0 });
        }
    }

    /// When a flow may be over, or an earlier moment; `None` if there is none.
    #[must_use]
    pub fn next_flow_due(&self) -> Option<f64> {
        self.read().next_due()
    }

    /// The first of `count` counters; asks for a new session when they run out.
    pub(crate) fn take_counters(&self, session: &Session, count: usize) -> Option<u64> {
        let taken = session.take_counters(count);
        match &taken {
            Some(counters) if !counters.nearly_exhausted => {}
            _ => self.report_exhausted(session),
        }
        taken.map(|counters| counters.first)
    }

    fn report_exhausted(&self, session: &Session) {
        count(&self.counters.sessions_exhausted);
        let (peer, local_index) = (session.peer.index, session.local_index);
        self.push(Upcall::Session { event: SessionEvent::Exhausted, peer, local_index });
    }

    pub(crate) fn push(&self, upcall: Upcall) {
        self.ring.push(upcall, &self.counters);
    }

    pub(crate) fn count_refused(&self, error: PacketError) {
        count(match error {
            PacketError::Malformed => &self.counters.packets_malformed,
            PacketError::Fragmented => &self.counters.packets_fragmented,
            PacketError::ExtensionHeader => &self.counters.packets_extension_header,
            PacketError::SourceRouted => &self.counters.packets_source_routed,
        });
    }

    /// A packet from the TUN device, as the threads would handle it.
    #[must_use]
    pub fn handle_tun(&self, packet: &[u8], now: f64) -> Vec<Datagram> {
        let mut queue = SendQueue::new(false);
        FromTun::default().handle(self, VnetHeader::PLAIN, &mut packet.to_vec(), now, &mut queue);
        datagrams(&mut queue)
    }

    /// A datagram from the network, as the threads would handle it; returns the packets for the TUN device.
    #[must_use]
    pub fn handle_datagram(&self, local: SocketAddr, remote: SocketAddr, payload: &[u8], now: f64) -> Vec<Vec<u8>> {
        let mut arena = payload.to_vec();
        let mut receiver = Receiver::default();
        receiver.handle(self, local, remote, 0, &mut arena, 0..payload.len(), payload.len(), now);
        receiver.take_packets(&arena)
    }

    /// A packet of a peer that was opened earlier; returns the packets for the TUN device.
    #[must_use]
    pub fn handle_inner(&self, peer: PeerIndex, packet: &[u8], now: f64) -> Vec<Vec<u8>> {
        let mut arena = packet.to_vec();
        let mut receiver = Receiver::default();
        receiver.handle_inner(self, peer, &mut arena, now);
        receiver.take_packets(&arena)
    }
}

/// What a queue that makes no use of GSO holds.
pub(crate) fn datagrams(queue: &mut SendQueue) -> Vec<Datagram> {
    let queue = queue.seal_all();
    queue.sends().iter().map(|send| (send.to.local, send.to.remote, queue.payload(send).to_vec())).collect()
}

impl Drop for Engine {
    fn drop(&mut self) {
        // Sessions and peers know each other; this lets go of both.
        for entry in self.write().peers.values() {
            entry.peer.clear_sessions();
        }
    }
}
