//! What whoever has not shown who it is gets from a relay: its address, or a nonce; and whose nonce is good.
//!
//! Floods from spoofed sources consist of such requests, so they are answered here, and never wait for Python with those
//! of clients whose nonce proves that they receive at their address. Only what is plain is answered; the rest is Python's,
//! whose answers have the same bytes. Source: RFC 8489, sections 5, 9.2 and 14; RFC 8656, section 7.2.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use blake2::Blake2sMac;
use blake2::digest::Mac;
use blake2::digest::consts::U9;

const HEADER: usize = 20;
const COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];
const BINDING: [u8; 2] = [0, 1];
const ALLOCATE: [u8; 2] = [0, 3];
const BINDING_SUCCESS: [u8; 2] = [1, 1];
const ALLOCATE_ERROR: [u8; 2] = [1, 0x13];
const MESSAGE_INTEGRITY: u16 = 0x0008;
const ERROR_CODE: u16 = 0x0009;
const LIFETIME: u16 = 0x000d;
const REALM: u16 = 0x0014;
const NONCE: u16 = 0x0015;
const REQUESTED_TRANSPORT: u16 = 0x0019;
const MESSAGE_INTEGRITY_SHA256: u16 = 0x001c;
const XOR_MAPPED_ADDRESS: u16 = 0x0020;
const PASSWORD_ALGORITHMS: u16 = 0x8002;
const SOFTWARE: u16 = 0x8022;
const UNAUTHORIZED: &[u8] = b"\0\0\x04\x01Unauthorized";
const NONCE_LIFETIME_S: u64 = 3600;
const TIME_SIZE: usize = 3;
const MAC_SIZE: usize = 9;
/// Base64 of time and MAC.
const NONCE_SIZE: usize = 16;
const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
const BUCKETS: usize = 4096;
/// Answers of all kinds to all strangers: an answer costs ten times what it costs to drop a request, and the thread that
/// sends it is the one that forwards for everybody else.
const ANSWERS_PER_S: f64 = 20_000.0;
const ANSWERS_BURST: f64 = 2_000.0;

/// How strangers are answered.
pub struct Settings {
    /// What nonces are made with.
    pub nonce_key: [u8; 16],
    /// What nonces begin with.
    pub nonce_cookie: Vec<u8>,
    /// The value of PASSWORD-ALGORITHMS in refusals; empty for none.
    pub algorithms: Vec<u8>,
    pub realm: Vec<u8>,
    /// Refusals for one IPv4 /24 or IPv6 /56: a second for long, and at once.
    pub refusals_per_s: f64,
    pub refusals_burst: f64,
    /// Where this host's own connections come from, whose clients are elsewhere.
    pub own: Vec<IpAddr>,
}

/// What to do with a STUN message.
#[derive(Debug, PartialEq, Eq)]
pub enum Judgement {
    /// The answer to a Binding request.
    Binding(Vec<u8>),
    /// The refusal of an Allocate, with a nonce.
    Refusal(Vec<u8>),
    /// It would be refused, but its network was refused too often.
    Limited,
    /// There were too many answers of late.
    Overrun,
    /// It has a nonce that its client has received.
    Proven,
    /// Anything else.
    Other,
}

/// Answers strangers; see the module.
pub struct Strangers {
    settings: Settings,
    /// Monotonic milliseconds.
    now_ms: AtomicU64,
    random: RandomState,
    limits: Mutex<Limits>,
}

struct Limits {
    answers: Bucket,
    refusals_by_network: Vec<Bucket>,
}

#[derive(Clone)]
struct Bucket {
    level: f64,
    at_ms: u64,
}

impl Bucket {
    fn take(&mut self, now_ms: u64, per_s: f64, burst: f64) -> bool {
        let gained = now_ms.saturating_sub(self.at_ms) as f64 / 1000.0 * per_s;
        self.level = (self.level + gained).min(burst);
        self.at_ms = now_ms;
        let may = self.level >= 1.0;
        self.level -= f64::from(u8::from(may));
        may
    }
}

impl Strangers {
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let full = Bucket { level: settings.refusals_burst, at_ms: 0 };
        Self {
            settings,
            now_ms: AtomicU64::new(0),
            random: RandomState::new(),
            limits: Mutex::new(Limits {
                answers: Bucket { level: ANSWERS_BURST, at_ms: 0 },
                refusals_by_network: vec![full; BUCKETS],
            }),
        }
    }

    /// Tells the time, of the clock that nonces are made with.
    pub fn tick(&self, now_ms: u64) {
        self.now_ms.store(now_ms, Relaxed);
    }

    /// Looks at a message that begins as STUN does.
    pub fn judge(&self, client: SocketAddr, datagram: &[u8]) -> Judgement {
        let Some((header, attributes)) = split(datagram) else {
            return Judgement::Other;
        };
        if client.ip().is_loopback() || self.settings.own.contains(&client.ip()) {
            return Judgement::Other; // by TCP or TLS: Python knows where the client is
        }
        match [header[0], header[1]] {
            BINDING if each(attributes, |kind, _| kind == SOFTWARE || (0xc000..).contains(&kind)) => {
                if self.may_answer() { Judgement::Binding(mapped(client, header)) } else { Judgement::Overrun }
            }
            BINDING => Judgement::Other,
            ALLOCATE if is_bare_allocate(attributes) => {
                if !self.may_refuse(client.ip()) {
                    Judgement::Limited
                } else if self.may_answer() {
                    Judgement::Refusal(self.refusal(client, header))
                } else {
                    Judgement::Overrun
                }
            }
            _ if self.is_proven(client, attributes) => Judgement::Proven,
            _ => Judgement::Other,
        }
    }

    fn refusal(&self, client: SocketAddr, header: &[u8; HEADER]) -> Vec<u8> {
        let seconds = self.now_ms.load(Relaxed) / 1000;
        let mut body = Vec::with_capacity(72);
        attribute(&mut body, ERROR_CODE, UNAUTHORIZED);
        attribute(&mut body, REALM, &self.settings.realm);
        let nonce = [&self.settings.nonce_cookie[..], &self.nonce(client, seconds)].concat();
        attribute(&mut body, NONCE, &nonce);
        if !self.settings.algorithms.is_empty() {
            attribute(&mut body, PASSWORD_ALGORITHMS, &self.settings.algorithms);
        }
        message(ALLOCATE_ERROR, header, &body)
    }

    fn nonce(&self, client: SocketAddr, seconds: u64) -> [u8; NONCE_SIZE] {
        let [.., a, b, c] = seconds.to_be_bytes();
        let mut value = [a, b, c, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let mut mac = <Blake2sMac<U9> as Mac>::new_from_slice(&self.settings.nonce_key).expect("16 bytes are a key");
        mac.update(&value[..TIME_SIZE]);
        mac.update(client.to_string().as_bytes());
        value[TIME_SIZE..].copy_from_slice(&mac.finalize().into_bytes()[..MAC_SIZE]);
        let mut text = [0; NONCE_SIZE];
        for (four, three) in text.chunks_exact_mut(4).zip(value.chunks_exact(3)) {
            let bits = u32::from_be_bytes([0, three[0], three[1], three[2]]);
            for (place, shift) in four.iter_mut().zip([18, 12, 6, 0]) {
                *place = ALPHABET[(bits >> shift & 63) as usize];
            }
        }
        text
    }

    /// Whether there is a signature and a nonce that we gave this client within the last hour. Who signed is Python's
    /// to say.
    fn is_proven(&self, client: SocketAddr, attributes: &[u8]) -> bool {
        let (mut is_signed, mut nonce) = (false, None);
        let is_whole = each(attributes, |kind, value| {
            is_signed |= kind == MESSAGE_INTEGRITY || kind == MESSAGE_INTEGRITY_SHA256;
            if kind == NONCE && nonce.is_none() {
                let value = value.strip_prefix(&self.settings.nonce_cookie[..]).unwrap_or(value);
                nonce = <[u8; NONCE_SIZE]>::try_from(value).ok();
            }
            true
        });
        let Some(nonce) = nonce.filter(|_| is_whole && is_signed) else {
            return false;
        };
        let bits = nonce[..4].iter().try_fold(0, |bits, byte| {
            let digit = ALPHABET.iter().position(|letter| letter == byte)?;
            Some(bits << 6 | digit as u64)
        });
        let now = self.now_ms.load(Relaxed) / 1000;
        bits.is_some_and(|at| {
            now.wrapping_sub(at) & 0xff_ffff <= NONCE_LIFETIME_S && self.nonce(client, at)[..] == nonce
        })
    }

    fn may_refuse(&self, host: IpAddr) -> bool {
        let place = match host {
            IpAddr::V4(ip) => self.random.hash_one(&ip.octets()[..3]),
            IpAddr::V6(ip) => self.random.hash_one(&ip.octets()[..7]),
        };
        let (per_s, burst) = (self.settings.refusals_per_s, self.settings.refusals_burst);
        let mut limits = self.limits.lock().unwrap_or_else(PoisonError::into_inner);
        let bucket = &mut limits.refusals_by_network[place as usize % BUCKETS];
        bucket.take(self.now_ms.load(Relaxed), per_s, burst)
    }

    fn may_answer(&self) -> bool {
        let mut limits = self.limits.lock().unwrap_or_else(PoisonError::into_inner);
        limits.answers.take(self.now_ms.load(Relaxed), ANSWERS_PER_S, ANSWERS_BURST)
    }
}

/// Header and attributes of a whole STUN message.
fn split(datagram: &[u8]) -> Option<(&[u8; HEADER], &[u8])> {
    let (header, rest) = datagram.split_first_chunk::<HEADER>()?;
    let length = usize::from(u16::from_be_bytes([header[2], header[3]]));
    (header[4..8] == COOKIE && length == rest.len() && length.is_multiple_of(4)).then_some((header, rest))
}

/// Whether every attribute is whole and as `accepts` says.
fn each(mut rest: &[u8], mut accepts: impl FnMut(u16, &[u8]) -> bool) -> bool {
    while let Some((tag, after)) = rest.split_first_chunk::<4>() {
        let size = usize::from(u16::from_be_bytes([tag[2], tag[3]]));
        let Some(value) = after.get(..size) else {
            return false;
        };
        if !accepts(u16::from_be_bytes([tag[0], tag[1]]), value) {
            return false;
        }
        rest = after.get(size.next_multiple_of(4)..).unwrap_or_default();
    }
    true
}

fn is_bare_allocate(attributes: &[u8]) -> bool {
    let mut has_transport = false;
    each(attributes, |kind, value| {
        has_transport |= kind == REQUESTED_TRANSPORT;
        kind == SOFTWARE || (matches!(kind, REQUESTED_TRANSPORT | LIFETIME) && value.len() == 4)
    }) && has_transport
}

fn mapped(client: SocketAddr, header: &[u8; HEADER]) -> Vec<u8> {
    let mut value = vec![0, if client.is_ipv6() { 2 } else { 1 }];
    value.extend(client.port().to_be_bytes().iter().zip(&COOKIE).map(|(a, b)| a ^ b));
    match client.ip() {
        IpAddr::V4(ip) => value.extend(ip.octets().iter().zip(&header[4..]).map(|(a, b)| a ^ b)),
        IpAddr::V6(ip) => value.extend(ip.octets().iter().zip(&header[4..]).map(|(a, b)| a ^ b)),
    }
    let mut body = Vec::with_capacity(24);
    attribute(&mut body, XOR_MAPPED_ADDRESS, &value);
    message(BINDING_SUCCESS, header, &body)
}

fn attribute(body: &mut Vec<u8>, kind: u16, value: &[u8]) {
    body.extend(kind.to_be_bytes());
    body.extend(u16::try_from(value.len()).unwrap_or(u16::MAX).to_be_bytes());
    body.extend(value);
    body.resize(body.len().next_multiple_of(4), 0);
}

fn message(kind: [u8; 2], request: &[u8; HEADER], body: &[u8]) -> Vec<u8> {
    let [c, d] = u16::try_from(body.len()).unwrap_or(u16::MAX).to_be_bytes();
    [&[kind[0], kind[1], c, d][..], &request[4..], body].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: [u8; 16] = *b"0123456789abcdef";

    fn at(text: &str) -> SocketAddr {
        text.parse().expect("a literal address")
    }

    fn strangers() -> Strangers {
        let strangers = Strangers::new(Settings {
            nonce_key: KEY,
            nonce_cookie: Vec::new(),
            algorithms: Vec::new(),
            realm: b"firezone".to_vec(),
            refusals_per_s: 2.0,
            refusals_burst: 3.0,
            own: vec!["192.0.2.1".parse().expect("a literal address")],
        });
        strangers.tick(5_000_000);
        strangers
    }

    fn request(kind: [u8; 2], attributes: &[(u16, &[u8])]) -> Vec<u8> {
        let mut body = Vec::new();
        for (kind, value) in attributes {
            attribute(&mut body, *kind, value);
        }
        let header = [&[0; 4][..], &COOKIE, b"transactions"].concat();
        message(kind, header[..].try_into().expect("20 bytes"), &body)
    }

    const UDP: (u16, &[u8]) = (REQUESTED_TRANSPORT, &[17, 0, 0, 0]);

    fn nonce_in(judgement: Judgement) -> Vec<u8> {
        let Judgement::Refusal(answer) = judgement else { panic!("{judgement:?}") };
        answer[answer.len() - NONCE_SIZE..].to_vec()
    }

    #[test]
    fn a_plain_binding_request_is_told_its_address() {
        let Judgement::Binding(answer) = strangers().judge(at("198.51.100.7:40000"), &request(BINDING, &[])) else {
            panic!("no answer")
        };
        assert_eq!(answer[..4], [1, 1, 0, 12]);
        assert_eq!(answer[4..20], request(BINDING, &[])[4..20]);
        assert_eq!(answer[20..], [0, 0x20, 0, 8, 0, 1, 0xbd, 0x52, 0xe7, 0x21, 0xc0, 0x45]);
    }

    #[test]
    fn what_is_not_plain_is_left_to_python() {
        let strangers = strangers();
        for attributes in [&[(0x0006, &b"name"[..])][..], &[(0x8028, b"1234")], &[(0x8029, b"12345678")]] {
            assert_eq!(strangers.judge(at("198.51.100.7:1"), &request(BINDING, attributes)), Judgement::Other);
        }
        for attributes in [&[][..], &[(REQUESTED_TRANSPORT, &b""[..])], &[UDP, (0x0006, b"a")], &[UDP, (0x0018, b"")]] {
            assert_eq!(strangers.judge(at("198.51.100.7:1"), &request(ALLOCATE, attributes)), Judgement::Other);
        }
        for own in ["127.0.0.1:9", "192.0.2.1:9"] {
            assert_eq!(strangers.judge(at(own), &request(BINDING, &[])), Judgement::Other);
        }
        let mut cut = request(ALLOCATE, &[UDP]);
        cut.pop();
        assert_eq!(strangers.judge(at("198.51.100.7:1"), &cut), Judgement::Other);
    }

    #[test]
    fn a_nonce_proves_its_client_alone_and_for_an_hour() {
        let strangers = strangers();
        let client = at("198.51.100.7:40000");
        let nonce = nonce_in(strangers.judge(client, &request(ALLOCATE, &[UDP])));
        let signed = request([0, 4], &[(NONCE, &nonce), (MESSAGE_INTEGRITY, &[0; 20])]);

        assert_eq!(strangers.judge(client, &signed), Judgement::Proven);
        assert_eq!(strangers.judge(at("198.51.100.7:40001"), &signed), Judgement::Other);
        assert_eq!(strangers.judge(client, &request([0, 4], &[(NONCE, &nonce)])), Judgement::Other);
        strangers.tick(5_000_000 + 3_600_000);
        assert_eq!(strangers.judge(client, &signed), Judgement::Proven);
        strangers.tick(5_000_000 + 3_601_000);
        assert_eq!(strangers.judge(client, &signed), Judgement::Other);
    }

    #[test]
    fn a_network_is_refused_so_often_and_no_more() {
        let strangers = strangers();
        let asks = |host: &str| strangers.judge(at(host), &request(ALLOCATE, &[UDP])) == Judgement::Limited;

        assert_eq!([1, 2, 3, 4].map(|last| asks(&format!("198.51.100.{last}:1"))), [false, false, false, true]);
        assert!(!asks("203.0.113.1:1"));
        strangers.tick(5_000_500);
        assert_eq!([5, 6].map(|last| asks(&format!("198.51.100.{last}:1"))), [false, true]);
    }

    #[test]
    fn all_strangers_together_get_so_many_answers() {
        let strangers = strangers();
        let answered = |count: usize| {
            let asks = |_: &usize| strangers.judge(at("198.51.100.7:1"), &request(BINDING, &[])) != Judgement::Overrun;
            (0..count).filter(asks).count()
        };

        assert_eq!(answered(3000), 2000);
        strangers.tick(5_000_010);
        assert_eq!(answered(3000), 200);
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_judged(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..80)) {
            strangers().judge(at("[2001:db8::7]:9"), &bytes);
        }
    }
}
