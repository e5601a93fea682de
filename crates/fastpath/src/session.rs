//! Transport keys at work: seal and open data messages.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};

use wide_aead::{LANES, MAX_LEN, Run, WORTHWHILE, WideKey};

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
    sealing: Key,
    opening: Key,
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
            sealing: Key::new(&keys.sealing),
            opening: Key::new(&keys.opening),
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
        self.write_header(counter, message);
        let packet_len = message.len() - OVERHEAD;
        let (packet, tag_room) = message[HEADER_LEN..].split_at_mut(packet_len);
        let tag = self
            .sealing
            .one
            .seal_in_place_separate_tag(nonce(counter), Aad::empty(), packet)
            .expect("a packet is far shorter than the cipher's limit");
        tag_room.copy_from_slice(tag.as_ref());
    }

    /// As [`Self::seal`] for messages of `len` bytes each at `starts` of `buffer`, which ascend, with successive counters.
    pub fn seal_run(&self, first_counter: u64, buffer: &mut [u8], starts: &[usize], len: usize) {
        let mut counter = first_counter;
        for group in starts.chunks(LANES) {
            match self.sealing.wide(group.len(), len) {
                Some(wide) => {
                    let (mut packets, mut counters) = ([0; LANES], [0; LANES]);
                    for (index, start) in group.iter().enumerate() {
                        (packets[index], counters[index]) = (start + HEADER_LEN, counter + index as u64);
                        self.write_header(counters[index], &mut buffer[*start..]);
                    }
                    let (starts, counters) = (&packets[..group.len()], &counters[..group.len()]);
                    wide.seal(buffer, &Run { starts, len: len - OVERHEAD, counters });
                }
                None => {
                    for (index, start) in group.iter().enumerate() {
                        self.seal(counter + index as u64, &mut buffer[*start..start + len]);
                    }
                }
            }
            counter += group.len() as u64;
        }
    }

    fn write_header(&self, counter: u64, message: &mut [u8]) {
        message[..4].copy_from_slice(&DATA);
        message[4..8].copy_from_slice(&self.remote_index.to_le_bytes());
        message[8..HEADER_LEN].copy_from_slice(&counter.to_le_bytes());
    }

    /// Opens in place and returns the packet inside the message.
    ///
    /// # Errors
    /// If it is too late for this session, not authentic, or a replay; the bytes are then of no use.
    pub fn open<'a>(&self, message: &'a mut [u8], now: f64) -> Result<&'a mut [u8], OpenError> {
        self.check_age(now)?;
        let counter = counter(message);
        check_counter(counter)?;
        let packet = self
            .opening
            .one
            .open_in_place(nonce(counter), Aad::empty(), &mut message[HEADER_LEN..])
            .map_err(|_| OpenError::NotAuthentic)?;
        self.accept(counter)?;
        Ok(packet)
    }

    /// As [`Self::open`] for at most [`LANES`] messages of `len` bytes each at `starts` of `buffer`, which ascend; gives as
    /// many outcomes, and leaves the packets where they are.
    pub fn open_run(
        &self,
        buffer: &mut [u8],
        starts: &[usize],
        len: usize,
        now: f64,
    ) -> [Result<(), OpenError>; LANES] {
        let mut outcomes = [self.check_age(now); LANES];
        let Some(wide) = self.opening.wide(starts.len(), len).filter(|_| outcomes[0].is_ok()) else {
            for (outcome, start) in outcomes.iter_mut().zip(starts) {
                *outcome = self.open(&mut buffer[*start..start + len], now).map(drop);
            }
            return outcomes;
        };
        let (mut packets, mut counters) = ([0; LANES], [0; LANES]);
        for (index, start) in starts.iter().enumerate() {
            (packets[index], counters[index]) = (start + HEADER_LEN, counter(&buffer[*start..]));
        }
        let run = Run { starts: &packets[..starts.len()], len: len - OVERHEAD, counters: &counters[..starts.len()] };
        let are_authentic = wide.open(buffer, &run);
        for (index, outcome) in outcomes.iter_mut().enumerate().take(starts.len()) {
            *outcome = check_counter(counters[index])
                .and_then(|()| if are_authentic[index] { Ok(()) } else { Err(OpenError::NotAuthentic) })
                .and_then(|()| self.accept(counters[index]));
        }
        outcomes
    }

    /// Whether [`Self::open_run`] takes so many messages of this length at once.
    pub fn opens_together(&self, count: usize, len: usize) -> bool {
        self.opening.wide(count, len).is_some()
    }

    fn check_age(&self, now: f64) -> Result<(), OpenError> {
        if now < self.opens_until { Ok(()) } else { Err(OpenError::Expired) }
    }

    /// Remembers the counter of a message that authenticated.
    fn accept(&self, counter: u64) -> Result<(), OpenError> {
        // A poisoned window is as good as a whole one: no step inside can fail.
        let is_new = self.replay.lock().unwrap_or_else(PoisonError::into_inner).accept(counter);
        if is_new { Ok(()) } else { Err(OpenError::Replayed) }
    }
}

/// One direction's key, for messages one by one and for runs of them where the processor can do that faster.
struct Key {
    one: LessSafeKey,
    many: Option<WideKey>,
}

impl Key {
    fn new(bytes: &[u8; 32]) -> Self {
        let key = UnboundKey::new(&CHACHA20_POLY1305, bytes).expect("32 bytes are this cipher's key length");
        Self { one: LessSafeKey::new(key), many: WideKey::new(bytes) }
    }

    /// For `count` messages of `len` bytes, if that is faster.
    fn wide(&self, count: usize, len: usize) -> Option<&WideKey> {
        self.many.as_ref().filter(|_| count >= WORTHWHILE && len <= MAX_LEN)
    }
}

fn check_counter(counter: u64) -> Result<(), OpenError> {
    if counter < REJECT_AFTER_MESSAGES { Ok(()) } else { Err(OpenError::Replayed) }
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
