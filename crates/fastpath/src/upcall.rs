//! What Python has to decide: a bounded ring that deals fairly with whoever fills it.
//!
//! Packets wait apart from what keeps tunnels alive (datagrams of handshakes and paths, session events), and by source:
//! sources take turns, and when there is no room left, one that has little waiting still gets its share.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::counters::{Counters, count};
use crate::install::Miss;
use crate::peer::PeerIndex;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionEvent {
    Confirmed,
    Missing,
    Exhausted,
    /// Data of a peer that was asleep was sent or received.
    Woken,
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
    /// A packet that no flow knows.
    Packet(Miss),
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

/// Who sent a packet: a peer, or without one the host.
type Source = Option<PeerIndex>;

#[derive(Default)]
struct Waiting {
    /// Never many, and never lost to a flood of anything else.
    sessions: VecDeque<Upcall>,
    datagrams: VecDeque<Upcall>,
    /// No queue is empty.
    packets: HashMap<Source, VecDeque<Upcall>>,
    /// Every source with packets once, the one whose turn it is in front.
    turns: VecDeque<Source>,
    packet_count: usize,
}

impl Waiting {
    fn len(&self) -> usize {
        self.sessions.len() + self.datagrams.len() + self.packet_count
    }

    fn push_packet(&mut self, source: Source, packet: Upcall) {
        let queue = self.packets.entry(source).or_default();
        if queue.is_empty() {
            self.turns.push_back(source);
        }
        queue.push_back(packet);
        self.packet_count += 1;
    }

    /// One packet of the source whose turn it is.
    fn pop_packet(&mut self) -> Option<Upcall> {
        let source = self.turns.pop_front()?;
        let queue = self.packets.get_mut(&source)?;
        let packet = queue.pop_front();
        self.packet_count -= 1;
        if queue.is_empty() {
            self.packets.remove(&source);
        } else {
            self.turns.push_back(source);
        }
        packet
    }
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

    /// Adds an upcall unless the part of the ring that its source may fill is full.
    pub fn push(&self, upcall: Upcall, counters: &Counters) {
        let mut waiting = self.lock();
        let counter = match &upcall {
            Upcall::Packet(miss) => {
                let source = miss.peer;
                let mine = waiting.packets.get(&source).map_or(0, VecDeque::len);
                if mine >= self.most_of(source) {
                    return count(&counters.upcalls_dropped_share);
                }
                if waiting.packet_count >= self.capacity && mine >= self.fair_share(&waiting, mine) {
                    return count(&counters.upcalls_dropped_full);
                }
                waiting.push_packet(source, upcall);
                &counters.upcalls_packet
            }
            Upcall::Datagram { .. } => {
                if waiting.datagrams.len() >= self.half() {
                    return count(&counters.upcalls_dropped_share);
                }
                waiting.datagrams.push_back(upcall);
                &counters.upcalls_datagram
            }
            Upcall::Session { .. } => {
                if waiting.sessions.len() >= 2 * self.capacity {
                    return count(&counters.upcalls_dropped_full);
                }
                waiting.sessions.push_back(upcall);
                &counters.upcalls_session
            }
        };
        count(counter);
        if waiting.len() == 1 {
            self.signal.raise();
        }
    }

    /// Takes at most `limit`: session events, datagrams and then packets, for which a quarter is kept free. The signal
    /// is cleared with the last one.
    pub fn poll(&self, limit: usize) -> Vec<Upcall> {
        let mut waiting = self.lock();
        let of_sessions = limit.min(waiting.sessions.len());
        let mut upcalls: Vec<Upcall> = waiting.sessions.drain(..of_sessions).collect();
        let room = limit - upcalls.len();
        let kept_free = waiting.packet_count.min(room.div_ceil(4));
        let of_datagrams = (room - kept_free).min(waiting.datagrams.len());
        upcalls.extend(waiting.datagrams.drain(..of_datagrams));
        while upcalls.len() < limit {
            let Some(packet) = waiting.pop_packet() else { break };
            upcalls.push(packet);
        }
        if waiting.len() == 0 {
            self.signal.clear();
        }
        upcalls
    }

    /// How many packets of one source may wait however much room there is.
    fn most_of(&self, source: Source) -> usize {
        if source.is_some() { self.per_peer } else { self.half() }
    }

    /// The TUN device, and all senders of datagrams together, get half of the ring.
    fn half(&self) -> usize {
        self.per_peer.max(self.capacity / 2)
    }

    /// How many packets a source may have waiting in a full ring. All shares together are one ring at most, so that no
    /// more than two rings of packets ever wait.
    fn fair_share(&self, waiting: &Waiting, mine: usize) -> usize {
        let sources = waiting.turns.len() + usize::from(mine == 0);
        self.capacity / sources.max(1)
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Silent;

    impl Signal for Silent {
        fn raise(&self) {}
        fn clear(&self) {}
    }

    fn ring() -> (Ring, Counters) {
        (Ring::new(16, 8, Box::new(Silent)), Counters::default())
    }

    fn packet(source: Source) -> Upcall {
        let bytes = vec![0x45, 0, 0, 20, 0, 0, 0, 0, 64, 47, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
        Upcall::Packet(Miss::parse(source, bytes).unwrap())
    }

    fn datagram() -> Upcall {
        let address = ([192, 0, 2, 1], 1).into();
        Upcall::Datagram { local: address, remote: address, payload: Vec::new() }
    }

    fn sources(upcalls: &[Upcall]) -> Vec<Source> {
        let source = |upcall: &Upcall| match upcall {
            Upcall::Packet(miss) => Some(miss.peer),
            _ => None,
        };
        upcalls.iter().filter_map(source).collect()
    }

    #[test]
    fn a_peer_with_little_to_say_gets_its_turn_and_its_place_in_a_flood_of_others() {
        let (ring, counters) = ring();
        for _ in 0..100 {
            for flooding in [Some(1), Some(2), Some(3)] {
                ring.push(packet(flooding), &counters);
            }
        }

        for _ in 0..4 {
            ring.push(packet(Some(9)), &counters);
        }

        let polled = sources(&ring.poll(8));
        assert_eq!(polled.iter().filter(|source| **source == Some(9)).count(), 2);
        assert_eq!(sources(&ring.poll(100)).iter().filter(|source| **source == Some(9)).count(), 2);
    }

    #[test]
    fn packets_leave_room_for_what_keeps_tunnels_alive() {
        let (ring, counters) = ring();
        for source in 0..100 {
            ring.push(packet(Some(source % 10)), &counters);
        }

        ring.push(datagram(), &counters);
        ring.push(Upcall::Session { event: SessionEvent::Missing, peer: 1, local_index: 0 }, &counters);

        assert!(matches!(ring.poll(4)[..], [Upcall::Session { .. }, Upcall::Datagram { .. }, ..]));
    }

    #[test]
    fn datagrams_leave_room_for_packets() {
        let (ring, counters) = ring();
        for _ in 0..8 {
            ring.push(datagram(), &counters);
            ring.push(packet(None), &counters);
        }

        assert_eq!(sources(&ring.poll(4)).len(), 1);
    }

    #[test]
    fn however_many_sources_there_are_the_ring_is_bounded() {
        let (ring, counters) = ring();
        for _ in 0..10 {
            for source in 0..1000 {
                ring.push(packet(Some(source)), &counters);
            }
        }

        let waiting = ring.poll(usize::MAX).len();
        assert!((16..=32).contains(&waiting), "{waiting}");
    }
}
