//! The tables that Python fills and packets are looked up in.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;

use crate::flow::{Flow, FlowReport, FlowSpec};
use crate::packet::FlowKey;
use crate::peer::{Peer, PeerIndex};
use crate::session::Session;

/// The most that any table may hold.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    pub peers: usize,
    pub flows: usize,
    pub flows_per_peer: usize,
}

/// A request that the tables cannot follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TableError {
    TooManyPeers,
    IndexTaken,
    MixedFamilies,
}

/// Why a flow was not added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    Bound,
    Taken,
}

pub struct PeerEntry {
    pub peer: Arc<Peer>,
    flows: BTreeSet<u64>,
}

pub type Channels = Arc<HashSet<u16>>;

pub struct Tables {
    bounds: Bounds,
    pub peers: HashMap<PeerIndex, PeerEntry>,
    pub sessions: HashMap<u32, Arc<Session>>,
    /// Channels by relay; a set is replaced, never changed, so that readers may keep it.
    pub relays: HashMap<SocketAddr, Channels>,
    flows: HashMap<u64, Arc<Flow>>,
    by_tun_key: HashMap<FlowKey, Arc<Flow>>,
    by_peer_key: HashMap<(PeerIndex, FlowKey), Arc<Flow>>,
    /// Dead flows whose place was taken before anyone asked for them.
    replaced: Vec<FlowReport>,
}

impl Tables {
    #[must_use]
    pub fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            peers: HashMap::new(),
            sessions: HashMap::new(),
            relays: HashMap::new(),
            flows: HashMap::new(),
            by_tun_key: HashMap::new(),
            by_peer_key: HashMap::new(),
            replaced: Vec::new(),
        }
    }

    /// The peer, made if it is new.
    ///
    /// # Errors
    /// If there would be too many.
    pub fn peer(&mut self, index: PeerIndex) -> Result<Arc<Peer>, TableError> {
        if let Some(entry) = self.peers.get(&index) {
            return Ok(Arc::clone(&entry.peer));
        }
        if self.peers.len() >= self.bounds.peers {
            return Err(TableError::TooManyPeers);
        }
        let peer = Arc::new(Peer::new(index));
        self.peers.insert(index, PeerEntry { peer: Arc::clone(&peer), flows: BTreeSet::new() });
        Ok(peer)
    }

    /// Forgets a peer with its sessions and flows.
    pub fn remove_peer(&mut self, index: PeerIndex) -> Vec<FlowReport> {
        let reports = self.remove_flows(index, None);
        if let Some(entry) = self.peers.remove(&index) {
            entry.peer.set_path(None);
            for session in entry.peer.clear_sessions() {
                self.sessions.remove(&session);
            }
        }
        reports
    }

    #[must_use]
    pub fn flow_from_tun(&self, key: &FlowKey) -> Option<&Arc<Flow>> {
        self.by_tun_key.get(key)
    }

    #[must_use]
    pub fn flow_from_peer(&self, peer: PeerIndex, key: &FlowKey) -> Option<&Arc<Flow>> {
        self.by_peer_key.get(&(peer, *key))
    }

    /// Adds a flow; one with the same id is replaced and its figures go on.
    ///
    /// # Errors
    /// If the peer is one too many, or a key's addresses are of different families.
    pub fn add_flow(&mut self, spec: FlowSpec, now: f64) -> Result<Result<(), Refusal>, TableError> {
        let (tun_key, peer_key) = spec.keys().ok_or(TableError::MixedFamilies)?;
        let (id, index) = (spec.flow_id, spec.peer);
        for holder in [self.by_tun_key.get(&tun_key), self.by_peer_key.get(&(index, peer_key))].into_iter().flatten() {
            if holder.spec.flow_id != id && holder.is_live(now) {
                return Ok(Err(Refusal::Taken));
            }
        }
        let old = self.take(id);
        self.evict_dead(&tun_key, index, &peer_key);
        let of_peer = self.peers.get(&index).map_or(0, |entry| entry.flows.len());
        if self.flows.len() >= self.bounds.flows || of_peer >= self.bounds.flows_per_peer {
            self.keep(old.map(|old| old.report()));
            return Ok(Err(Refusal::Bound));
        }
        let peer = self.peer(index)?;
        let flow = Flow::new(spec, peer, now).ok_or(TableError::MixedFamilies)?;
        let flow = Arc::new(match old {
            Some(old) => flow.continuing(&old),
            None => flow,
        });
        self.by_tun_key.insert(tun_key, Arc::clone(&flow));
        self.by_peer_key.insert((index, peer_key), Arc::clone(&flow));
        self.flows.insert(id, flow);
        if let Some(entry) = self.peers.get_mut(&index) {
            entry.flows.insert(id);
        }
        Ok(Ok(()))
    }

    fn evict_dead(&mut self, tun_key: &FlowKey, peer: PeerIndex, peer_key: &FlowKey) {
        let holders = [self.by_tun_key.get(tun_key), self.by_peer_key.get(&(peer, *peer_key))];
        let dead: BTreeSet<u64> = holders.into_iter().flatten().map(|flow| flow.spec.flow_id).collect();
        for id in dead {
            let report = self.remove_flow(id);
            self.keep(report);
        }
    }

    /// Keeps a report for the next expiry; when nobody ever asks, later ones are lost.
    fn keep(&mut self, report: Option<FlowReport>) {
        if self.replaced.len() < self.bounds.flows {
            self.replaced.extend(report);
        }
    }

    pub fn remove_flow(&mut self, id: u64) -> Option<FlowReport> {
        self.take(id).map(|flow| flow.report())
    }

    fn take(&mut self, id: u64) -> Option<Arc<Flow>> {
        let flow = self.flows.remove(&id)?;
        flow.mark_gone();
        self.by_tun_key.remove(&flow.tun_key);
        self.by_peer_key.remove(&(flow.spec.peer, flow.peer_key));
        if let Some(entry) = self.peers.get_mut(&flow.spec.peer) {
            entry.flows.remove(&id);
        }
        Some(flow)
    }

    /// Removes a peer's flows, or those of one authorization.
    pub fn remove_flows(&mut self, peer: PeerIndex, authorization: Option<u64>) -> Vec<FlowReport> {
        let Some(entry) = self.peers.get(&peer) else { return Vec::new() };
        let concerned = |id: &u64| {
            let of_flow = self.flows.get(id).map(|flow| flow.spec.authorization);
            authorization.is_none() || of_flow == authorization
        };
        let ids: Vec<u64> = entry.flows.iter().copied().filter(concerned).collect();
        ids.into_iter().filter_map(|id| self.remove_flow(id)).collect()
    }

    /// Ids of flows that are over, the lowest first.
    #[must_use]
    pub fn dead_flows(&self, now: f64, limit: usize) -> Vec<u64> {
        let mut ids: Vec<u64> =
            self.flows.values().filter(|flow| !flow.is_live(now)).map(|flow| flow.spec.flow_id).collect();
        ids.sort_unstable();
        ids.truncate(limit);
        ids
    }

    /// Flows that died and were replaced since the last call.
    pub fn take_replaced(&mut self, limit: usize) -> Vec<FlowReport> {
        let taken = limit.min(self.replaced.len());
        self.replaced.drain(..taken).collect()
    }

    /// Flows by id, the lowest first.
    #[must_use]
    pub fn reports(&self, limit: usize) -> Vec<FlowReport> {
        let mut ids: Vec<u64> = self.flows.keys().copied().collect();
        ids.sort_unstable();
        ids.iter().take(limit).map(|id| self.flows[id].report()).collect()
    }

    #[must_use]
    pub fn flow_count(&self) -> usize {
        self.flows.len()
    }
}
