//! Transport keys at work: seal and open data messages.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};

use crate::noise::Keypair;
use crate::peer::Peer;
use crate::replay::ReplayWindow;

/// Type, receiver index and counter in front of the ciphertext.
pub const HEADER_LEN: usize = 16;
pub const TAG_LEN: usize = 16;
/// What a data message is longer than its packet.
pub const OVERHEAD: usize = HEADER_LEN + TAG_LEN;

const DATA: [u8; 4] = [4, 0, 0, 0];
/// Neither side uses a session beyond this age.
const REJECT_AFTER_S: f64 = 180.0;
/// Past this counter Python is asked for a new session.
const REKEY_AFTER_MESSAGES: u64 = 1 << 60;
/// From this counter on nothing is sealed or opened any more.
const REJECT_AFTER_MESSAGES: u64 = u64::MAX - (1 << 13);

/// Why a datagram was not opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenError {
    Expired,
    NotAuthentic,
    Replayed,
}

/// A run of counters to seal with.
pub struct Counters {
    pub first: u64,
    /// The run crossed the mark where a new session should be made.
    pub nearly_exhausted: bool,
}

pub struct Session {
    pub local_index: u32,
    pub peer: Arc<Peer>,
    remote_index: u32,
    created_at: f64,
    seals_until: f64,
    opens_until: f64,
    sealing: LessSafeKey,
    opening: LessSafeKey,
    next_counter: AtomicU64,
    replay: Mutex<ReplayWindow>,
    is_confirmed: AtomicBool,
    is_removed: AtomicBool,
}

impl Session {
    #[must_use]
    pub fn new(keys: &Keypair, peer: Arc<Peer>, now: f64, initiator_stops_after_s: f64) -> Self {
        let seals_for = if keys.is_initiator { initiator_stops_after_s.min(REJECT_AFTER_S) } else { REJECT_AFTER_S };
        Self {
            local_index: keys.local_index,
            remote_index: keys.remote_index,
            peer,
            created_at: now,
            seals_until: now + seals_for,
            opens_until: now + REJECT_AFTER_S,
            sealing: key(&keys.sealing),
            opening: key(&keys.opening),
            next_counter: AtomicU64::new(0),
            replay: Mutex::default(),
            is_confirmed: AtomicBool::new(keys.is_initiator),
            is_removed: AtomicBool::new(false),
        }
    }

    #[must_use]
    pub fn created_at(&self) -> f64 {
        self.created_at
    }

    #[must_use]
    pub fn is_removed(&self) -> bool {
        self.is_removed.load(Relaxed)
    }

    pub(crate) fn mark_removed(&self) {
        self.is_removed.store(true, Relaxed);
    }

    /// Whether the other side is known to have the keys, so that we may seal.
    #[must_use]
    pub fn is_confirmed(&self) -> bool {
        self.is_confirmed.load(Relaxed)
    }

    /// Returns whether this call confirmed it.
    pub(crate) fn confirm(&self) -> bool {
        !self.is_confirmed() && !self.is_confirmed.swap(true, Relaxed)
    }

    #[must_use]
    pub fn can_seal(&self, now: f64) -> bool {
        self.is_confirmed()
            && !self.is_removed()
            && now < self.seals_until
            && self.next_counter.load(Relaxed) < REJECT_AFTER_MESSAGES
    }

    /// Takes `count` counters, or `None` if they are used up.
    pub fn take_counters(&self, count: usize) -> Option<Counters> {
        let count = count as u64;
        let first = self.next_counter.fetch_add(count, Relaxed);
        if first >= REJECT_AFTER_MESSAGES - count {
            self.next_counter.store(REJECT_AFTER_MESSAGES, Relaxed);
            return None;
        }
        let nearly_exhausted = first < REKEY_AFTER_MESSAGES && first + count >= REKEY_AFTER_MESSAGES;
        Some(Counters { first, nearly_exhausted })
    }

    /// Seals in place: `message` is room for the header, the packet, and room for the tag.
    pub fn seal(&self, counter: u64, message: &mut [u8]) {
        let (header, rest) = message.split_at_mut(HEADER_LEN);
        let (packet, tag_room) = rest.split_at_mut(rest.len() - TAG_LEN);
        header[..4].copy_from_slice(&DATA);
        header[4..8].copy_from_slice(&self.remote_index.to_le_bytes());
        header[8..].copy_from_slice(&counter.to_le_bytes());
        let tag = self
            .sealing
            .seal_in_place_separate_tag(nonce(counter), Aad::empty(), packet)
            .expect("a packet is far shorter than the cipher's limit");
        tag_room.copy_from_slice(tag.as_ref());
    }

    /// Opens in place and returns the packet inside the message.
    ///
    /// # Errors
    /// If it is too late for this session, not authentic, or a replay; the bytes are then of no use.
    pub fn open<'a>(&self, message: &'a mut [u8], now: f64) -> Result<&'a mut [u8], OpenError> {
        if now >= self.opens_until {
            return Err(OpenError::Expired);
        }
        let counter = counter(message);
        if counter >= REJECT_AFTER_MESSAGES {
            return Err(OpenError::Replayed);
        }
        let packet = self
            .opening
            .open_in_place(nonce(counter), Aad::empty(), &mut message[HEADER_LEN..])
            .map_err(|_| OpenError::NotAuthentic)?;
        // A poisoned window is as good as a whole one: no step inside can fail.
        if !self.replay.lock().unwrap_or_else(PoisonError::into_inner).accept(counter) {
            return Err(OpenError::Replayed);
        }
        Ok(packet)
    }
}

/// The receiver index, if the datagram has the form of a data message.
#[must_use]
pub fn receiver_index(datagram: &[u8]) -> Option<u32> {
    (datagram.len() >= OVERHEAD && datagram[..4] == DATA)
        .then(|| u32::from_le_bytes([datagram[4], datagram[5], datagram[6], datagram[7]]))
}

fn counter(message: &[u8]) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&message[8..16]);
    u64::from_le_bytes(bytes)
}

fn nonce(counter: u64) -> Nonce {
    let mut bytes = [0; 12];
    bytes[4..].copy_from_slice(&counter.to_le_bytes());
    Nonce::assume_unique_for_key(bytes)
}

fn key(bytes: &[u8; 32]) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, bytes).expect("32 bytes are this cipher's key length"))
}
