//! What is kept about one peer: its sessions, its path and when it was heard of.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwapOption;

use crate::clock::AtomicTime;
use crate::flow::Ended;
use crate::session::Session;

/// At most so many sessions a peer; the oldest goes.
const MAX_SESSIONS: usize = 8;
/// At most one `missing` a peer in this time.
const MISSING_INTERVAL_S: f64 = 1.0;

pub type PeerIndex = u32;

/// Where a peer's datagrams go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Path {
    /// The source address to send from; `None` leaves it to the kernel.
    pub local: Option<SocketAddr>,
    /// The peer, or the relay if there is a channel.
    pub remote: SocketAddr,
    pub channel: Option<u16>,
}

/// When a tunnel was last used; "data" is a message with a packet inside.
#[derive(Default)]
pub struct Activity {
    pub last_data_sent_at: AtomicTime,
    pub last_data_received_at: AtomicTime,
    pub last_sent_at: AtomicTime,
    pub last_received_at: AtomicTime,
    pub first_unanswered_at: AtomicTime,
    pub last_flow_packet_at: AtomicTime,
    pub sent_packets: AtomicU64,
    pub sent_bytes: AtomicU64,
    pub received_packets: AtomicU64,
    pub received_bytes: AtomicU64,
}

pub struct Peer {
    pub index: PeerIndex,
    pub activity: Activity,
    path: ArcSwapOption<Path>,
    sending: ArcSwapOption<Session>,
    /// Oldest first.
    sessions: Mutex<Vec<Arc<Session>>>,
    missing_reported_at: AtomicTime,
    /// Python does not look at this peer until it is told that data moved.
    is_asleep: AtomicBool,
    /// Of all peers of the same tables.
    pub(crate) ended: Arc<Ended>,
}

impl Peer {
    #[must_use]
    pub fn new(index: PeerIndex, ended: Arc<Ended>) -> Self {
        Self {
            index,
            activity: Activity::default(),
            path: ArcSwapOption::empty(),
            sending: ArcSwapOption::empty(),
            sessions: Mutex::default(),
            missing_reported_at: AtomicTime::new(f64::NEG_INFINITY),
            is_asleep: AtomicBool::new(false),
            ended,
        }
    }

    pub fn set_path(&self, path: Option<Path>) {
        self.path.store(path.map(Arc::new));
    }

    #[must_use]
    pub fn path(&self) -> Option<Path> {
        self.path.load().as_deref().copied()
    }

    /// The session that seals now.
    pub fn sending(&self, now: f64) -> Option<Arc<Session>> {
        let sending = self.sending.load();
        match sending.as_ref() {
            Some(session) if session.can_seal(now) => Some(Arc::clone(session)),
            None => None,
            Some(_) => {
                self.elect(&self.lock(), now);
                self.sending.load().as_ref().filter(|session| session.can_seal(now)).cloned()
            }
        }
    }

    /// The local index of the session that seals, 0 if none.
    #[must_use]
    pub fn sending_index(&self) -> u32 {
        self.sending.load().as_ref().map_or(0, |session| session.local_index)
    }

    /// Adds a session and returns the one that had to go.
    pub(crate) fn add_session(&self, session: Arc<Session>, now: f64) -> Option<Arc<Session>> {
        let mut sessions = self.lock();
        let evicted = (sessions.len() == MAX_SESSIONS).then(|| sessions.remove(0));
        if let Some(evicted) = &evicted {
            evicted.mark_removed();
        }
        sessions.push(session);
        self.elect(&sessions, now);
        evicted
    }

    pub(crate) fn remove_session(&self, local_index: u32) {
        let mut sessions = self.lock();
        sessions.retain(|session| session.local_index != local_index);
        self.elect(&sessions, f64::NEG_INFINITY);
    }

    /// Forgets all sessions and returns their indices.
    pub(crate) fn clear_sessions(&self) -> Vec<u32> {
        let mut sessions = self.lock();
        self.sending.store(None);
        sessions.iter().for_each(|session| session.mark_removed());
        sessions.drain(..).map(|session| session.local_index).collect()
    }

    /// Lets the newest session that may seal do so.
    pub(crate) fn elect_at(&self, now: f64) {
        self.elect(&self.lock(), now);
    }

    fn elect(&self, sessions: &MutexGuard<'_, Vec<Arc<Session>>>, now: f64) {
        self.sending.store(sessions.iter().rev().find(|session| session.can_seal(now)).cloned());
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Session>>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the lack of a session is to be reported now.
    pub(crate) fn reports_missing(&self, now: f64) -> bool {
        let is_due = now - self.missing_reported_at.get() >= MISSING_INTERVAL_S;
        if is_due {
            self.missing_reported_at.set(now);
        }
        is_due
    }

    /// Has the next data of this peer told, once.
    pub(crate) fn sleep(&self) {
        self.is_asleep.store(true, Relaxed);
    }

    /// Whether data that moves now is to be told.
    pub(crate) fn wakes(&self) -> bool {
        self.is_asleep.load(Relaxed) && self.is_asleep.swap(false, Relaxed)
    }

    /// `bytes` of packets were sealed in `packets` messages; a keepalive has no bytes.
    pub(crate) fn note_sent(&self, packets: usize, bytes: usize, now: f64) {
        let activity = &self.activity;
        activity.last_sent_at.set(now);
        if bytes > 0 {
            activity.last_data_sent_at.set(now);
            activity.first_unanswered_at.set_first(now);
            activity.sent_packets.fetch_add(packets as u64, Relaxed);
            activity.sent_bytes.fetch_add(bytes as u64, Relaxed);
        }
    }

    /// As [`Self::note_sent`] for one packet that nobody answers.
    pub(crate) fn note_answered(&self, bytes: usize, now: f64) {
        let activity = &self.activity;
        activity.last_sent_at.set(now);
        activity.last_data_sent_at.set(now);
        activity.sent_packets.fetch_add(1, Relaxed);
        activity.sent_bytes.fetch_add(bytes as u64, Relaxed);
    }

    /// As [`Self::note_sent`] for authentic messages received.
    pub(crate) fn note_received(&self, packets: usize, bytes: usize, now: f64) {
        let activity = &self.activity;
        activity.last_received_at.set(now);
        activity.first_unanswered_at.clear();
        if bytes > 0 {
            activity.last_data_received_at.set(now);
            activity.received_packets.fetch_add(packets as u64, Relaxed);
            activity.received_bytes.fetch_add(bytes as u64, Relaxed);
        }
    }
}
