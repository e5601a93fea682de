//! What Python has to decide: one bounded ring, with a share for each peer.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::counters::{Counters, count};
use crate::peer::PeerIndex;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionEvent {
    Confirmed,
    Missing,
    Exhausted,
}

/// How a packet came to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    pub local: SocketAddr,
    pub remote: SocketAddr,
    pub channel: Option<u16>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Upcall {
    /// A packet that no flow knows; without a peer it came from the TUN device.
    Packet {
        peer: Option<PeerIndex>,
        packet: Vec<u8>,
        arrival: Option<Arrival>,
    },
    /// A datagram that is not data of a session.
    Datagram {
        local: SocketAddr,
        remote: SocketAddr,
        payload: Vec<u8>,
    },
    Session {
        event: SessionEvent,
        peer: PeerIndex,
        local_index: u32,
    },
}

/// Tells the reader that something waits; both calls are made under the ring's lock.
pub trait Signal: Send + Sync {
    fn raise(&self);
    fn clear(&self);
}

/// Whose waiting upcalls are counted together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Share {
    Peer(PeerIndex),
    Tun,
    Strangers,
}

#[derive(Default)]
struct Waiting {
    upcalls: VecDeque<Upcall>,
    by_share: HashMap<Share, usize>,
}

pub struct Ring {
    capacity: usize,
    per_peer: usize,
    signal: Box<dyn Signal>,
    waiting: Mutex<Waiting>,
}

impl Ring {
    #[must_use]
    pub fn new(capacity: usize, per_peer: usize, signal: Box<dyn Signal>) -> Self {
        Self { capacity, per_peer, signal, waiting: Mutex::default() }
    }

    /// Adds an upcall unless the ring, or the part of it that its source may fill, is full.
    ///
    /// Session events are few by nature and must not be lost to a flood of packets: for them there is twice the room.
    pub fn push(&self, upcall: Upcall, counters: &Counters) {
        let share = share(&upcall);
        let room = if share.is_some() { self.capacity } else { 2 * self.capacity };
        let mut waiting = self.lock();
        if waiting.upcalls.len() >= room {
            return count(&counters.upcalls_dropped_full);
        }
        if let Some(share) = share {
            let taken = waiting.by_share.entry(share).or_default();
            if *taken >= self.room_of(share) {
                return count(&counters.upcalls_dropped_share);
            }
            *taken += 1;
        }
        count(match upcall {
            Upcall::Packet { .. } => &counters.upcalls_packet,
            Upcall::Datagram { .. } => &counters.upcalls_datagram,
            Upcall::Session { .. } => &counters.upcalls_session,
        });
        waiting.upcalls.push_back(upcall);
        if waiting.upcalls.len() == 1 {
            self.signal.raise();
        }
    }

    /// Takes the oldest, at most `limit`; the signal is cleared with the last one.
    pub fn poll(&self, limit: usize) -> Vec<Upcall> {
        let mut waiting = self.lock();
        let taken = limit.min(waiting.upcalls.len());
        let upcalls: Vec<Upcall> = waiting.upcalls.drain(..taken).collect();
        for share in upcalls.iter().filter_map(share) {
            if let Some(left) = waiting.by_share.get_mut(&share) {
                *left -= 1;
                if *left == 0 {
                    waiting.by_share.remove(&share);
                }
            }
        }
        if waiting.upcalls.is_empty() {
            self.signal.clear();
        }
        upcalls
    }

    /// Strangers and the TUN device get half of the ring, so that neither keeps the peers out.
    fn room_of(&self, share: Share) -> usize {
        match share {
            Share::Peer(_) => self.per_peer,
            Share::Tun | Share::Strangers => self.per_peer.max(self.capacity / 2),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn share(upcall: &Upcall) -> Option<Share> {
    match upcall {
        Upcall::Packet { peer: Some(peer), .. } => Some(Share::Peer(*peer)),
        Upcall::Packet { peer: None, .. } => Some(Share::Tun),
        Upcall::Datagram { .. } => Some(Share::Strangers),
        Upcall::Session { .. } => None,
    }
}
