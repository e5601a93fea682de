//! The tables that Python fills and packets are looked up in.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::sync::Arc;

use hashbrown::HashTable;

use crate::flow::{Ended, Flow, FlowReport, FlowSpec, Idle, Keys};
use crate::packet::FlowKey;
use crate::peer::{Peer, PeerIndex};
use crate::session::Session;

/// Entries of the heap of dues that may be stale whatever the number of flows.
const DUE_SLACK: usize = 1024;

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

/// A flow that a missed packet is to open.
#[derive(Debug, Clone, Copy)]
pub struct Wanted {
    pub peer: PeerIndex,
    pub authorization: u64,
    pub keys: Keys,
    pub idle: Idle,
}

/// What became of it.
pub enum Installed {
    Added(Arc<Flow>),
    /// It was there: several packets of one flow waited for the decision.
    Known(Arc<Flow>),
    Refused(Refusal),
}

pub struct PeerEntry {
    pub peer: Arc<Peer>,
    flows: BTreeSet<u64>,
}

pub type Channels = Arc<HashSet<u16>>;

/// A moment at which a flow may be over.
struct Due {
    at: f64,
    flow_id: u64,
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.at.total_cmp(&other.at).then(self.flow_id.cmp(&other.flow_id))
    }
}

pub struct Tables {
    bounds: Bounds,
    pub peers: HashMap<PeerIndex, PeerEntry>,
    pub sessions: HashMap<u32, Arc<Session>>,
    /// Channels by relay; a set is replaced, never changed, so that readers may keep it.
    pub relays: HashMap<SocketAddr, Channels>,
    // Three ways to the same flows; each holds pointers alone, as the keys are in the flows. They have room for all
    // flows from the start: growing would hash every flow anew under the lock, and nothing is forwarded meanwhile.
    by_id: HashTable<Arc<Flow>>,
    by_tun_key: HashTable<Arc<Flow>>,
    by_peer_key: HashTable<Arc<Flow>>,
    hasher: RandomState,
    last_id: u64,
    /// For each flow the earliest moment that it may be over, unless `ended` knows of an earlier one; stale entries are
    /// passed over, and cleared out before they outnumber the others.
    dues: BinaryHeap<Reverse<Due>>,
    ended: Arc<Ended>,
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
            by_id: HashTable::with_capacity(bounds.flows),
            by_tun_key: HashTable::with_capacity(bounds.flows),
            by_peer_key: HashTable::with_capacity(bounds.flows),
            hasher: RandomState::new(),
            last_id: 0,
            dues: BinaryHeap::new(),
            ended: Arc::default(),
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
        let peer = Arc::new(Peer::new(index, Arc::clone(&self.ended)));
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
        self.by_tun_key.find(self.hasher.hash_one(key), |flow| flow.keys.tun == *key)
    }

    #[must_use]
    pub fn flow_from_peer(&self, peer: PeerIndex, key: &FlowKey) -> Option<&Arc<Flow>> {
        self.by_peer_key.find(self.peer_hash(peer, key), |flow| flow.peer.index == peer && flow.keys.peer == *key)
    }

    fn peer_hash(&self, peer: PeerIndex, key: &FlowKey) -> u64 {
        self.hasher.hash_one((key, peer))
    }

    #[must_use]
    pub fn flow(&self, id: u64) -> Option<&Arc<Flow>> {
        self.by_id.find(self.hasher.hash_one(id), |flow| flow.id == id)
    }

    /// Adds a flow; one with the same id is replaced and its figures go on.
    ///
    /// # Errors
    /// If the peer is one too many, or a key's addresses are of different families.
    pub fn add_flow(&mut self, spec: FlowSpec, now: f64) -> Result<Result<(), Refusal>, TableError> {
        let keys = spec.keys().ok_or(TableError::MixedFamilies)?;
        let (id, peer) = (spec.flow_id, spec.peer);
        if self.holders(peer, &keys).into_iter().flatten().any(|holder| holder.id != id && holder.is_live(now)) {
            return Ok(Err(Refusal::Taken));
        }
        let old = self.take(id);
        let idle = Idle { confirmed_s: spec.idle_s as f32, unconfirmed_s: spec.unconfirmed_idle_s as f32 };
        let added =
            self.add(id, Wanted { peer, authorization: spec.authorization, keys, idle }, old.as_deref(), now)?;
        if added.is_err() {
            self.keep(old.map(|old| old.report()));
        }
        Ok(added.map(drop))
    }

    /// Opens the flow of a packet that missed, unless it is there already. A live flow with its key in the tunnel that
    /// was decided otherwise makes room; one of another key that looks the same on the TUN device does not.
    ///
    /// # Errors
    /// If the peer is one too many.
    pub fn install(&mut self, wanted: Wanted, now: f64) -> Result<Installed, TableError> {
        let [by_tun, by_peer] = self.holders(wanted.peer, &wanted.keys);
        if let Some(flow) = by_tun.filter(|flow| flow.is_live(now)) {
            if flow.keys != wanted.keys || flow.peer.index != wanted.peer {
                return Ok(Installed::Refused(Refusal::Taken));
            }
            if flow.authorization == wanted.authorization {
                return Ok(Installed::Known(Arc::clone(flow)));
            }
        }
        let old = by_peer.map(|flow| flow.id);
        let report = old.and_then(|id| self.remove_flow(id));
        self.keep(report);
        loop {
            self.last_id += 1;
            if self.flow(self.last_id).is_none() {
                break;
            }
        }
        Ok(match self.add(self.last_id, wanted, None, now)? {
            Ok(flow) => Installed::Added(flow),
            Err(refusal) => Installed::Refused(refusal),
        })
    }

    /// Who has the keys now, from the TUN device and from the peer.
    fn holders(&self, peer: PeerIndex, keys: &Keys) -> [Option<&Arc<Flow>>; 2] {
        [self.flow_from_tun(&keys.tun), self.flow_from_peer(peer, &keys.peer)]
    }

    /// Adds a flow whose keys no live one has.
    fn add(
        &mut self,
        id: u64,
        wanted: Wanted,
        old: Option<&Flow>,
        now: f64,
    ) -> Result<Result<Arc<Flow>, Refusal>, TableError> {
        self.evict_dead(wanted.peer, &wanted.keys);
        let of_peer = self.peers.get(&wanted.peer).map_or(0, |entry| entry.flows.len());
        if self.by_id.len() >= self.bounds.flows || of_peer >= self.bounds.flows_per_peer {
            return Ok(Err(Refusal::Bound));
        }
        let peer = self.peer(wanted.peer)?;
        let flow = Flow::new(id, peer, wanted.authorization, wanted.keys, wanted.idle, now);
        let flow = Arc::new(match old {
            Some(old) => flow.continuing(old),
            None => flow,
        });
        let hasher = &self.hasher;
        let by_id = |flow: &Arc<Flow>| hasher.hash_one(flow.id);
        let by_tun = |flow: &Arc<Flow>| hasher.hash_one(flow.keys.tun);
        let by_peer = |flow: &Arc<Flow>| hasher.hash_one((flow.keys.peer, flow.peer.index));
        self.by_id.insert_unique(by_id(&flow), Arc::clone(&flow), by_id);
        self.by_tun_key.insert_unique(by_tun(&flow), Arc::clone(&flow), by_tun);
        self.by_peer_key.insert_unique(by_peer(&flow), Arc::clone(&flow), by_peer);
        if let Some(entry) = self.peers.get_mut(&wanted.peer) {
            entry.flows.insert(id);
        }
        self.note_due(flow.check_at(now), id, now);
        Ok(Ok(flow))
    }

    fn note_due(&mut self, at: f64, flow_id: u64, now: f64) {
        self.dues.push(Reverse(Due { at, flow_id }));
        if self.dues.len() > 2 * self.by_id.len() + DUE_SLACK {
            let live = self.by_id.iter().map(|flow| Reverse(Due { at: flow.check_at(now), flow_id: flow.id }));
            self.dues = live.collect();
        }
    }

    fn evict_dead(&mut self, peer: PeerIndex, keys: &Keys) {
        let dead: BTreeSet<u64> = self.holders(peer, keys).into_iter().flatten().map(|flow| flow.id).collect();
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
        let found = self.by_id.find_entry(self.hasher.hash_one(id), |flow| flow.id == id);
        let flow = found.ok()?.remove().0;
        flow.mark_gone();
        let (by_tun, by_peer) = (self.hasher.hash_one(flow.keys.tun), self.peer_hash(flow.peer.index, &flow.keys.peer));
        for (table, hash) in [(&mut self.by_tun_key, by_tun), (&mut self.by_peer_key, by_peer)] {
            if let Ok(entry) = table.find_entry(hash, |other| Arc::ptr_eq(other, &flow)) {
                entry.remove();
            }
        }
        if let Some(entry) = self.peers.get_mut(&flow.peer.index) {
            entry.flows.remove(&id);
        }
        Some(flow)
    }

    /// Removes a peer's flows, or those of one authorization.
    pub fn remove_flows(&mut self, peer: PeerIndex, authorization: Option<u64>) -> Vec<FlowReport> {
        let Some(entry) = self.peers.get(&peer) else { return Vec::new() };
        let concerned = |id: &u64| {
            let of_flow = self.flow(*id).map(|flow| flow.authorization);
            authorization.is_none() || of_flow == authorization
        };
        let ids: Vec<u64> = entry.flows.iter().copied().filter(concerned).collect();
        ids.into_iter().filter_map(|id| self.remove_flow(id)).collect()
    }

    /// Removes flows that are over, at most `limit`, and gives their figures, first of those whose place was taken.
    pub fn expire(&mut self, now: f64, limit: usize) -> Vec<FlowReport> {
        let taken = limit.min(self.replaced.len());
        let mut reports: Vec<FlowReport> = self.replaced.drain(..taken).collect();
        for flow_id in self.ended.take() {
            if let Some(at) = self.flow(flow_id).map(|flow| flow.check_at(now)) {
                self.note_due(at, flow_id, now);
            }
        }
        while reports.len() < limit && self.dues.peek().is_some_and(|due| due.0.at <= now) {
            let Some(Reverse(Due { flow_id, .. })) = self.dues.pop() else { break };
            match self.flow(flow_id).map(|flow| (flow.is_live(now), flow.check_at(now))) {
                Some((true, at)) => self.note_due(at, flow_id, now),
                Some(_) => reports.extend(self.remove_flow(flow_id)),
                None => {}
            }
        }
        reports
    }

    /// When `expire` has something to do, or an earlier moment; `None` if there is nothing.
    #[must_use]
    pub fn next_due(&self) -> Option<f64> {
        if !self.replaced.is_empty() || !self.ended.is_empty() {
            return Some(0.0);
        }
        self.dues.peek().map(|due| due.0.at)
    }

    /// Flows with a greater id than `after`, the lowest first.
    #[must_use]
    pub fn reports(&self, after: u64, limit: usize) -> Vec<FlowReport> {
        let mut flows: Vec<&Arc<Flow>> = self.by_id.iter().filter(|flow| flow.id > after).collect();
        if limit < flows.len() {
            flows.select_nth_unstable_by_key(limit, |flow| flow.id);
            flows.truncate(limit);
        }
        flows.sort_unstable_by_key(|flow| flow.id);
        flows.into_iter().map(|flow| flow.report()).collect()
    }

    /// Every flow, in no order.
    pub fn flows(&self) -> impl Iterator<Item = &Arc<Flow>> {
        self.by_id.iter()
    }

    #[must_use]
    pub fn flow_count(&self) -> usize {
        self.by_id.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::flow::Direction;
    use crate::packet::{ACK, FIN, RST, TCP};

    #[derive(Debug, Clone)]
    enum Step {
        Open { port: u16, confirmed_s: f32, unconfirmed_s: f32 },
        Pass { port: u16, inbound: bool, flags: u8 },
        Remove { port: u16 },
        Expire,
    }

    fn steps() -> impl Strategy<Value = Vec<(f64, Step)>> {
        let port = 1u16..6;
        let flags = prop_oneof![4 => Just(ACK), 2 => Just(FIN | ACK), 1 => Just(RST)];
        let step = prop_oneof![
            (port.clone(), 1f32..30.0, 1f32..30.0).prop_map(|(port, confirmed_s, unconfirmed_s)| Step::Open {
                port,
                confirmed_s,
                unconfirmed_s
            }),
            (port.clone(), any::<bool>(), flags).prop_map(|(port, inbound, flags)| Step::Pass { port, inbound, flags }),
            port.prop_map(|port| Step::Remove { port }),
            Just(Step::Expire),
        ];
        proptest::collection::vec((0f64..8.0, step), 1..80)
    }

    fn wanted(port: u16, confirmed_s: f32, unconfirmed_s: f32) -> Wanted {
        let (client, app) = (([100, 64, 0, 1], port).into(), ([10, 9, 0, 2], 80).into());
        let key = FlowKey::new(TCP, client, app, false).unwrap();
        let idle = Idle { confirmed_s, unconfirmed_s };
        Wanted { peer: 1, authorization: 1, keys: Keys::new(key, key, true), idle }
    }

    fn tables() -> Tables {
        Tables::new(Bounds { peers: 4, flows: 64, flows_per_peer: 64 })
    }

    proptest! {
        /// The heap of dues against a look at every flow.
        #[test]
        fn expiry_finds_every_dead_flow_and_no_other(steps in steps()) {
            let (mut tables, mut now) = (tables(), 0.0);
            for (after, step) in steps {
                now += after;
                match step {
                    Step::Open { port, confirmed_s, unconfirmed_s } => {
                        tables.install(wanted(port, confirmed_s, unconfirmed_s), now).unwrap();
                    }
                    Step::Pass { port, inbound, flags } => {
                        let flow = tables.flow_from_peer(1, &wanted(port, 1.0, 1.0).keys.peer).cloned();
                        if let Some(flow) = flow.filter(|flow| flow.is_live(now)) {
                            let direction = if inbound { Direction::Inbound } else { Direction::Outbound };
                            flow.note(direction, 1, 40, flags, now);
                        }
                    }
                    Step::Remove { port } => {
                        let id = tables.flow_from_peer(1, &wanted(port, 1.0, 1.0).keys.peer).map(|flow| flow.id);
                        id.and_then(|id| tables.remove_flow(id));
                    }
                    Step::Expire => {
                        let mut dead: Vec<u64> = tables.replaced.iter().map(|flow| flow.flow_id).collect();
                        dead.extend(tables.flows().filter(|flow| !flow.is_live(now)).map(|flow| flow.id));
                        let mut expired: Vec<u64> = tables.expire(now, 64).iter().map(|flow| flow.flow_id).collect();
                        dead.sort_unstable();
                        expired.sort_unstable();
                        prop_assert_eq!(expired, dead);
                    }
                }
                prop_assert_eq!(tables.by_tun_key.len(), tables.by_id.len());
                prop_assert_eq!(tables.by_peer_key.len(), tables.by_id.len());
                prop_assert_eq!(tables.peers.get(&1).map_or(0, |peer| peer.flows.len()), tables.by_id.len());
            }
        }
    }

    #[test]
    fn what_is_kept_of_removed_flows_is_bounded() {
        let mut tables = tables();
        for round in 0..100_000 {
            tables.install(wanted(1, 60.0, 60.0), f64::from(round) * 1e-6).unwrap();
            let id = tables.last_id;
            tables.remove_flow(id);
        }

        assert!(tables.dues.len() <= DUE_SLACK + 2);
    }

    #[test]
    fn the_next_due_is_never_after_the_first_end() {
        let mut tables = tables();
        assert_eq!(tables.next_due(), None);
        tables.install(wanted(1, 5.0, 5.0), 0.0).unwrap();
        tables.install(wanted(2, 2.0, 2.0), 0.0).unwrap();
        assert_eq!(tables.next_due(), Some(2.0));

        let flow = tables.flow_from_peer(1, &wanted(1, 1.0, 1.0).keys.peer).cloned().unwrap();
        flow.note(Direction::Outbound, 1, 40, RST | ACK, 1.0);
        assert!(tables.next_due().unwrap() <= 1.0);
        tables.expire(9.0, 64);
        assert_eq!(tables.next_due(), None);
    }

    #[test]
    fn tables_never_grow() {
        let mut tables = Tables::new(Bounds { peers: 4, flows: 5000, flows_per_peer: 5000 });
        let capacities =
            |tables: &Tables| [tables.by_id.capacity(), tables.by_tun_key.capacity(), tables.by_peer_key.capacity()];
        let before = capacities(&tables);
        for port in 0..6000 {
            tables.install(wanted(port, 5.0, 5.0), 0.0).unwrap();
        }

        assert_eq!(tables.flow_count(), 5000);
        assert_eq!(capacities(&tables), before);
    }

    #[test]
    fn a_limited_expiry_goes_on_where_it_stopped() {
        let mut tables = tables();
        for port in 0..10 {
            tables.install(wanted(port, 5.0, 5.0), 0.0).unwrap();
        }

        let counts: Vec<usize> = (0..4).map(|_| tables.expire(6.0, 4).len()).collect();

        assert_eq!(counts, [4, 4, 2, 0]);
    }
}
