//! What a relay does with each datagram once a channel is bound or a host permitted: strip or add what is in front, and
//! pass it on.
//!
//! Sans-IO: datagrams go in, an [`Outbox`] of sends comes out, in which datagrams of one size to one place are joined so
//! that one system call can carry them. Everything that is no channel data of a known channel and no indication for a
//! permitted host is dropped or, on the listening port, an upcall. Source: RFC 8656, sections 11 and 12.

use std::collections::hash_map::RandomState;
use std::collections::{HashMap, HashSet};
use std::hash::BuildHasher;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::counters::{add, count};
use crate::indications;
use crate::strangers::{Judgement, Strangers};

pub const HEADER_SIZE: usize = 4;
/// Second byte of the type of a Send indication, the first being 0.
const SEND_INDICATION: u8 = 0x16;
/// No more channels than this, whatever is asked for.
pub const MAX_CHANNELS: usize = 262_144;
/// What one send may carry: the largest UDP payload over IPv4.
const MAX_SEND: usize = 65_507;
/// Longer datagrams are sent one by one, since segmentation refuses what does not fit the link.
const MAX_SEGMENT: usize = 1_452;
/// What the kernel cuts one send into at most.
const MAX_SEGMENTS: usize = 64;

/// What a channel carried in one direction.
#[derive(Default)]
pub struct Traffic {
    packets: AtomicU64,
    bytes: AtomicU64,
}

impl Traffic {
    fn count(&self, bytes: usize) {
        count(&self.packets);
        add(&self.bytes, bytes);
    }

    /// Packets and bytes.
    #[must_use]
    pub fn get(&self) -> (u64, u64) {
        (self.packets.load(Relaxed), self.bytes.load(Relaxed))
    }
}

/// One channel between a client and a peer of the allocation at `port`.
pub struct Channel {
    pub client: SocketAddr,
    pub number: u16,
    pub port: u16,
    pub peer: SocketAddr,
    pub to_peer: Traffic,
    pub to_client: Traffic,
}

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Datagrams by what became of them.
        #[derive(Default)]
        pub struct Counters { $($(#[$doc])* pub $name: AtomicU64,)* }

        impl Counters {
            /// Name and value of each, in the order of declaration.
            pub fn each(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($name), self.$name.load(Relaxed)),)*].into_iter()
            }
        }
    };
}

counters! {
    forwarded_to_peer,
    forwarded_to_client,
    /// Of these, in Send and Data indications.
    indications_to_peer,
    indications_to_client,
    /// Binding requests that were answered without Python, and Allocates without credentials that were refused so.
    bindings_answered,
    allocates_refused,
    /// Its network was refused too often.
    dropped_refusal_limit,
    /// All strangers together asked too often.
    dropped_answer_limit,
    upcalls,
    /// The ring was full.
    upcalls_dropped_full,
    /// One host had too many waiting.
    upcalls_dropped_share,
    dropped_source_port,
    dropped_unknown,
    dropped_malformed,
    dropped_channel,
    dropped_peer,
    /// An indication for a host without permission.
    dropped_permission,
    /// For this host, where no allocation has the port.
    dropped_own_address,
    receive_calls,
    send_calls,
    send_would_block,
    send_errors,
}

/// Why a channel could not be added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddError {
    TooManyChannels,
    NoSuchPort,
    /// The client's number belongs to another peer, or the port's peer to another channel.
    Taken,
}

/// What to do with a datagram that came to the listening port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is in the outbox, or dropped and counted.
    Done,
    /// It is a STUN message, as it seems.
    Upcall,
    /// The same, from a client that receives at its address, as its nonce proves.
    Proven,
}

/// Whose an allocation's port is, and what it may exchange without a channel.
#[derive(Default)]
struct Port {
    client: Option<SocketAddr>,
    permitted: HashSet<IpAddr>,
    /// By client and number.
    channels: HashSet<(SocketAddr, u16)>,
}

/// Which channels there are, by both of their ends.
pub struct Tables {
    listen_port: u16,
    public: Vec<IpAddr>,
    ports: HashMap<u16, Port>,
    /// Clients that have permissions.
    port_by_client: HashMap<SocketAddr, u16>,
    strangers: Option<Strangers>,
    transactions: AtomicU64,
    random: RandomState,
    by_client: HashMap<(SocketAddr, u16), Arc<Channel>>,
    by_peer: HashMap<(u16, SocketAddr), Arc<Channel>>,
    pub counters: Arc<Counters>,
}

impl Tables {
    /// `public` are the addresses by which clients and peers reach this relay.
    #[must_use]
    pub fn new(listen_port: u16, public: Vec<IpAddr>) -> Self {
        Self {
            listen_port,
            public,
            ports: HashMap::new(),
            port_by_client: HashMap::new(),
            strangers: None,
            transactions: AtomicU64::new(0),
            random: RandomState::new(),
            by_client: HashMap::new(),
            by_peer: HashMap::new(),
            counters: Arc::default(),
        }
    }

    /// From now on the plain requests of strangers are answered here; until then, all of STUN is an upcall.
    pub fn answer_strangers(&mut self, strangers: Strangers) {
        self.strangers = Some(strangers);
    }

    /// Tells the time to those who answer strangers.
    pub fn tick(&self, now_ms: u64) {
        if let Some(strangers) = &self.strangers {
            strangers.tick(now_ms);
        }
    }

    /// Notes that an allocation's port is open.
    pub fn add_port(&mut self, port: u16) {
        self.ports.entry(port).or_default();
    }

    /// Forgets a port with its channels.
    pub fn remove_port(&mut self, port: u16) -> bool {
        let Some(removed) = self.ports.remove(&port) else {
            return false;
        };
        if let Some(client) = removed.client {
            self.port_by_client.remove(&client);
        }
        for key in &removed.channels {
            if let Some(channel) = self.by_client.remove(key) {
                self.by_peer.remove(&(port, channel.peer));
            }
        }
        true
    }

    /// Adds a channel; one that is there already keeps its counters.
    ///
    /// # Errors
    /// Returns an [`AddError`] and changes nothing if the channel contradicts what is there.
    pub fn add_channel(
        &mut self,
        client: SocketAddr,
        number: u16,
        port: u16,
        peer: SocketAddr,
    ) -> Result<(), AddError> {
        let Some(entry) = self.ports.get_mut(&port) else {
            return Err(AddError::NoSuchPort);
        };
        let of_client = self.by_client.get(&(client, number));
        let of_peer = self.by_peer.get(&(port, peer));
        match (of_client, of_peer) {
            (Some(one), Some(other)) if Arc::ptr_eq(one, other) => return Ok(()),
            (None, None) if self.by_client.len() >= MAX_CHANNELS => return Err(AddError::TooManyChannels),
            (None, None) => {}
            _ => return Err(AddError::Taken),
        }
        let channel = Arc::new(Channel {
            client,
            number,
            port,
            peer,
            to_peer: Traffic::default(),
            to_client: Traffic::default(),
        });
        entry.channels.insert((client, number));
        self.by_client.insert((client, number), Arc::clone(&channel));
        self.by_peer.insert((port, peer), channel);
        Ok(())
    }

    pub fn remove_channel(&mut self, client: SocketAddr, number: u16) -> bool {
        let Some(channel) = self.by_client.remove(&(client, number)) else {
            return false;
        };
        self.by_peer.remove(&(channel.port, channel.peer));
        if let Some(entry) = self.ports.get_mut(&channel.port) {
            entry.channels.remove(&(client, number));
        }
        true
    }

    /// Lets the client of a port exchange indications with any port of `host`.
    ///
    /// # Errors
    /// Returns [`AddError::NoSuchPort`] if it is not open, or [`AddError::Taken`] if it is another client's.
    pub fn add_permission(&mut self, client: SocketAddr, port: u16, host: IpAddr) -> Result<(), AddError> {
        let entry = self.ports.get_mut(&port).ok_or(AddError::NoSuchPort)?;
        if entry.client.is_some_and(|owner| owner != client)
            || self.port_by_client.get(&client).is_some_and(|own| *own != port)
        {
            return Err(AddError::Taken);
        }
        entry.client = Some(client);
        entry.permitted.insert(host);
        self.port_by_client.insert(client, port);
        Ok(())
    }

    pub fn remove_permission(&mut self, port: u16, host: IpAddr) -> bool {
        self.ports.get_mut(&port).is_some_and(|entry| entry.permitted.remove(&host))
    }

    pub fn channel(&self, client: SocketAddr, number: u16) -> Option<&Channel> {
        self.by_client.get(&(client, number)).map(Arc::as_ref)
    }

    pub fn channels(&self) -> impl Iterator<Item = &Channel> {
        self.by_client.values().map(Arc::as_ref)
    }

    /// Takes a datagram that came to the listening port.
    pub fn client_datagram(&self, client: SocketAddr, datagram: &[u8], outbox: &mut Outbox) -> Verdict {
        let counters = &*self.counters;
        match datagram.first() {
            _ if client.port() == 0 => count(&counters.dropped_source_port),
            Some(0) if datagram.get(1) == Some(&SEND_INDICATION) => return self.indication(client, datagram, outbox),
            Some(0..=3) => return self.request(client, datagram, outbox),
            Some(0x40..=0x7f) => match decode(datagram) {
                Some((number, payload)) => self.channel_data(client, number, payload, outbox),
                None => count(&counters.dropped_malformed),
            },
            _ => count(&counters.dropped_unknown),
        }
        Verdict::Done
    }

    /// Takes a datagram that came to an allocation's port.
    pub fn peer_datagram(&self, port: u16, peer: SocketAddr, payload: &[u8], outbox: &mut Outbox) {
        if let Some(channel) = self.by_peer.get(&(port, peer)) {
            return self.to_client(channel, payload, outbox);
        }
        match self.ports.get(&port) {
            Some(Port { client: Some(client), permitted, .. }) if permitted.contains(&peer.ip()) => {
                self.indicate(*client, peer, payload, outbox);
            }
            _ => count(&self.counters.dropped_peer),
        }
    }

    fn channel_data(&self, client: SocketAddr, number: u16, payload: &[u8], outbox: &mut Outbox) {
        let Some(channel) = self.by_client.get(&(client, number)) else {
            return count(&self.counters.dropped_channel);
        };
        channel.to_peer.count(payload.len());
        self.to_peer(channel.port, channel.peer, payload, outbox);
    }

    fn request(&self, client: SocketAddr, datagram: &[u8], outbox: &mut Outbox) -> Verdict {
        let counters = &*self.counters;
        match self.strangers.as_ref().map_or(Judgement::Other, |strangers| strangers.judge(client, datagram)) {
            Judgement::Other => return Verdict::Upcall,
            Judgement::Proven => return Verdict::Proven,
            Judgement::Limited => count(&counters.dropped_refusal_limit),
            Judgement::Overrun => count(&counters.dropped_answer_limit),
            Judgement::Binding(answer) => {
                count(&counters.bindings_answered);
                outbox.push(self.listen_port, client, &[], &answer, &[]);
            }
            Judgement::Refusal(answer) => {
                count(&counters.allocates_refused);
                outbox.push(self.listen_port, client, &[], &answer, &[]);
            }
        }
        Verdict::Done
    }

    /// Takes a Send indication; one with anything unusual in it is for Python to judge.
    fn indication(&self, client: SocketAddr, datagram: &[u8], outbox: &mut Outbox) -> Verdict {
        match indications::read(datagram) {
            indications::Read::Unusual => return Verdict::Upcall,
            indications::Read::Malformed => count(&self.counters.dropped_malformed),
            indications::Read::Send(peer, payload) => {
                let port = self.port_by_client.get(&client);
                match port.and_then(|port| self.ports.get(port).map(|entry| (*port, entry))) {
                    Some((port, entry)) if entry.permitted.contains(&peer.ip()) && peer.port() != 0 => {
                        count(&self.counters.indications_to_peer);
                        self.to_peer(port, peer, payload, outbox);
                    }
                    _ => count(&self.counters.dropped_permission),
                }
            }
        }
        Verdict::Done
    }

    fn to_peer(&self, port: u16, peer: SocketAddr, payload: &[u8], outbox: &mut Outbox) {
        if self.public.contains(&peer.ip()) {
            if self.ports.contains_key(&peer.port()) {
                // Both ends use this relay: what the other allocation would receive, without the detour.
                return self.peer_datagram(peer.port(), SocketAddr::new(peer.ip(), port), payload, outbox);
            }
            if !peer.ip().is_loopback() {
                return count(&self.counters.dropped_own_address);
            }
        }
        count(&self.counters.forwarded_to_peer);
        outbox.push(port, peer, &[], payload, &[]);
    }

    fn indicate(&self, client: SocketAddr, peer: SocketAddr, payload: &[u8], outbox: &mut Outbox) {
        let Ok(length) = u16::try_from(payload.len()) else {
            return count(&self.counters.dropped_malformed);
        };
        let number = self.transactions.fetch_add(1, Relaxed);
        let (first, second) = (self.random.hash_one(number), self.random.hash_one(!number));
        let header = indications::header(peer, length, first, second);
        count(&self.counters.indications_to_client);
        count(&self.counters.forwarded_to_client);
        outbox.push(self.listen_port, client, &header, payload, &[0; 3][..payload.len().wrapping_neg() % 4]);
    }

    fn to_client(&self, channel: &Channel, payload: &[u8], outbox: &mut Outbox) {
        let Ok(length) = u16::try_from(payload.len()) else {
            return count(&self.counters.dropped_malformed);
        };
        channel.to_client.count(payload.len());
        count(&self.counters.forwarded_to_client);
        let [a, b] = channel.number.to_be_bytes();
        let [c, d] = length.to_be_bytes();
        outbox.push(self.listen_port, channel.client, &[a, b, c, d], payload, &[]);
    }
}

/// Number and payload of channel data; what stands behind the payload is padding.
#[must_use]
pub fn decode(datagram: &[u8]) -> Option<(u16, &[u8])> {
    let (header, rest) = datagram.split_first_chunk::<HEADER_SIZE>()?;
    let number = u16::from_be_bytes([header[0], header[1]]);
    let length = usize::from(u16::from_be_bytes([header[2], header[3]]));
    (0x4000..=0x7fff).contains(&number).then_some(())?;
    Some((number, rest.get(..length)?))
}

/// One send: the bytes are to be cut into datagrams of `segment` bytes, the last of which may be shorter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Send<'a> {
    pub port: u16,
    pub remote: SocketAddr,
    pub segment: usize,
    pub contents: &'a [u8],
}

struct Pending {
    port: u16,
    remote: SocketAddr,
    segment: usize,
    segments: usize,
    start: usize,
    /// Whether its last datagram is shorter, so that nothing may follow it.
    closed: bool,
}

/// What a batch of datagrams became.
#[derive(Default)]
pub struct Outbox {
    bytes: Vec<u8>,
    sends: Vec<Pending>,
    join: bool,
}

impl Outbox {
    /// `join` says whether datagrams may share a send.
    #[must_use]
    pub fn new(join: bool) -> Self {
        Self { join, ..Self::default() }
    }

    pub fn clear(&mut self) {
        self.bytes.clear();
        self.sends.clear();
    }

    /// The sends, in order.
    pub fn sends(&self) -> impl Iterator<Item = Send<'_>> {
        let ends = self.sends.iter().skip(1).map(|next| next.start).chain([self.bytes.len()]);
        self.sends.iter().zip(ends).map(|(send, end)| Send {
            port: send.port,
            remote: send.remote,
            segment: send.segment,
            contents: &self.bytes[send.start..end],
        })
    }

    fn push(&mut self, port: u16, remote: SocketAddr, header: &[u8], payload: &[u8], padding: &[u8]) {
        let length = header.len() + payload.len() + padding.len();
        let start = self.bytes.len();
        let joined = self.join
            && self.sends.last_mut().is_some_and(|last| {
                let fits = last.port == port
                    && last.remote == remote
                    && !last.closed
                    && (1..=last.segment.min(MAX_SEGMENT)).contains(&length)
                    && last.segment <= MAX_SEGMENT
                    && last.segments < MAX_SEGMENTS
                    && start - last.start + length <= MAX_SEND;
                if fits {
                    last.segments += 1;
                    last.closed = length < last.segment;
                }
                fits
            });
        if !joined {
            self.sends.push(Pending { port, remote, segment: length, segments: 1, start, closed: length == 0 });
        }
        self.bytes.extend_from_slice(header);
        self.bytes.extend_from_slice(payload);
        self.bytes.extend_from_slice(padding);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> SocketAddr {
        text.parse().expect("a literal address")
    }

    fn client() -> SocketAddr {
        at("198.51.100.7:40000")
    }

    fn peer() -> SocketAddr {
        at("192.0.2.9:52625")
    }

    fn tables() -> Tables {
        let mut tables = Tables::new(3478, vec!["203.0.113.3".parse().expect("a literal address")]);
        tables.add_port(50000);
        tables.add_channel(client(), 0x4000, 50000, peer()).expect("nothing is there yet");
        tables
    }

    fn frame(number: u16, payload: &[u8]) -> Vec<u8> {
        let length = u16::try_from(payload.len()).expect("short");
        [&number.to_be_bytes()[..], &length.to_be_bytes()[..], payload].concat()
    }

    fn sent(outbox: &Outbox) -> Vec<(u16, SocketAddr, usize, Vec<u8>)> {
        outbox.sends().map(|send| (send.port, send.remote, send.segment, send.contents.to_vec())).collect()
    }

    #[test]
    fn channel_data_goes_to_the_peer_without_header_and_padding() {
        let mut outbox = Outbox::new(true);
        let padded = [frame(0x4000, b"ping!"), vec![0; 3]].concat();

        assert_eq!(tables().client_datagram(client(), &padded, &mut outbox), Verdict::Done);

        assert_eq!(sent(&outbox), [(50000, peer(), 5, b"ping!".to_vec())]);
    }

    #[test]
    fn a_peers_datagram_goes_to_the_client_as_channel_data() {
        let mut outbox = Outbox::new(true);
        let tables = tables();

        tables.peer_datagram(50000, peer(), b"pong", &mut outbox);

        assert_eq!(sent(&outbox), [(3478, client(), 8, frame(0x4000, b"pong"))]);
        let channel = tables.channels().next().expect("one channel");
        assert_eq!((channel.to_peer.get(), channel.to_client.get()), ((0, 0), (1, 4)));
    }

    #[test]
    fn empty_datagrams_are_legal_and_never_joined() {
        let mut outbox = Outbox::new(true);
        let tables = tables();

        for _ in 0..2 {
            tables.client_datagram(client(), &frame(0x4000, b""), &mut outbox);
        }
        tables.peer_datagram(50000, peer(), b"", &mut outbox);

        let empty = (50000, peer(), 0, Vec::new());
        assert_eq!(sent(&outbox), [empty.clone(), empty, (3478, client(), 4, frame(0x4000, b""))]);
    }

    #[test]
    fn strangers_and_malformed_datagrams_are_counted_and_dropped() {
        let mut outbox = Outbox::new(true);
        let tables = tables();

        tables.client_datagram(client(), &frame(0x4001, b"x"), &mut outbox);
        tables.client_datagram(at("198.51.100.7:40001"), &frame(0x4000, b"x"), &mut outbox);
        tables.client_datagram(client(), &[0x40, 0, 0, 9, 1], &mut outbox);
        tables.client_datagram(client(), &[0x40, 0, 0], &mut outbox);
        tables.client_datagram(client(), &[], &mut outbox);
        tables.client_datagram(client(), &[0x80, 0, 0, 0], &mut outbox);
        tables.client_datagram(at("198.51.100.7:0"), &frame(0x4000, b"x"), &mut outbox);
        tables.peer_datagram(50000, at("192.0.2.9:52626"), b"x", &mut outbox);
        tables.peer_datagram(50001, peer(), b"x", &mut outbox);

        assert_eq!(sent(&outbox), []);
        let counted: Vec<_> = tables.counters.each().filter(|(_, value)| *value > 0).collect();
        assert_eq!(
            counted,
            [
                ("dropped_source_port", 1),
                ("dropped_unknown", 2),
                ("dropped_malformed", 2),
                ("dropped_channel", 2),
                ("dropped_peer", 2)
            ]
        );
    }

    fn send_indication(peer: SocketAddr, payload: &[u8]) -> Vec<u8> {
        let mut bytes = indications::header(peer, u16::try_from(payload.len()).expect("short"), 1, 2);
        bytes[1] = SEND_INDICATION;
        bytes.extend(payload);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    #[test]
    fn indications_go_both_ways_between_a_client_and_a_permitted_host() {
        let mut outbox = Outbox::new(false);
        let mut tables = tables();
        let stranger = at("192.0.2.10:52625");
        tables.add_permission(client(), 50000, stranger.ip()).expect("the port is open");

        assert_eq!(tables.client_datagram(client(), &send_indication(stranger, b"out"), &mut outbox), Verdict::Done);
        tables.peer_datagram(50000, stranger, b"in", &mut outbox);
        tables.peer_datagram(50000, peer(), b"channel", &mut outbox);

        let sent = sent(&outbox);
        assert_eq!(sent[0], (50000, stranger, 3, b"out".to_vec()));
        let (port, to, size, data) = &sent[1];
        assert_eq!((*port, *to, *size, &data[..2]), (3478, client(), 40, &[0, 0x17][..]));
        let mut back = data.clone();
        back[1] = SEND_INDICATION;
        assert_eq!(indications::read(&back), indications::Read::Send(stranger, b"in"));
        assert_eq!(sent[2].3, frame(0x4000, b"channel"));
    }

    #[test]
    fn indications_without_permission_are_dropped() {
        let mut outbox = Outbox::new(true);
        let mut tables = tables();
        let stranger = at("192.0.2.10:52625");
        let indication = send_indication(stranger, b"x");
        tables.client_datagram(client(), &indication, &mut outbox);
        tables.add_permission(client(), 50000, stranger.ip()).expect("the port is open");
        tables.client_datagram(at("198.51.100.7:40001"), &indication, &mut outbox);
        tables.client_datagram(client(), &send_indication(at("192.0.2.10:0"), b"x"), &mut outbox);
        tables.client_datagram(client(), &indication[..20], &mut outbox);
        assert!(tables.remove_permission(50000, stranger.ip()));
        assert!(!tables.remove_permission(50000, stranger.ip()));
        tables.client_datagram(client(), &indication, &mut outbox);
        tables.peer_datagram(50000, stranger, b"x", &mut outbox);

        assert_eq!(sent(&outbox), []);
        let counted: Vec<_> = tables.counters.each().filter(|(_, value)| *value > 0).collect();
        assert_eq!(counted, [("dropped_malformed", 1), ("dropped_peer", 1), ("dropped_permission", 4)]);
    }

    #[test]
    fn permissions_are_of_one_client_and_go_with_the_port() {
        let mut tables = tables();
        let host = peer().ip();
        tables.add_port(50001);
        assert_eq!(tables.add_permission(client(), 50002, host), Err(AddError::NoSuchPort));
        tables.add_permission(client(), 50000, host).expect("free");
        tables.add_permission(client(), 50000, host).expect("it is there");
        assert_eq!(tables.add_permission(at("198.51.100.8:1"), 50000, host), Err(AddError::Taken));
        assert_eq!(tables.add_permission(client(), 50001, host), Err(AddError::Taken));
        assert!(tables.remove_port(50000));
        tables.add_permission(client(), 50001, host).expect("the client's former port is gone");
    }

    #[test]
    fn this_host_is_reached_at_the_ports_of_allocations_alone() {
        let mut outbox = Outbox::new(true);
        let mut tables = tables();
        tables.add_channel(client(), 0x4001, 50000, at("203.0.113.3:22")).expect("free");

        tables.client_datagram(client(), &frame(0x4001, b"x"), &mut outbox);

        assert_eq!(sent(&outbox), []);
        assert!(tables.counters.each().any(|row| row == ("dropped_own_address", 1)));
    }

    #[test]
    fn stun_is_an_upcall() {
        let mut outbox = Outbox::new(true);
        assert_eq!(tables().client_datagram(client(), &[0, 1, 0, 0], &mut outbox), Verdict::Upcall);
    }

    #[test]
    fn strangers_are_answered_here_once_that_is_wanted() {
        let mut tables = tables();
        tables.answer_strangers(Strangers::new(crate::strangers::Settings {
            nonce_key: [7; 16],
            nonce_cookie: Vec::new(),
            algorithms: Vec::new(),
            realm: b"firezone".to_vec(),
            refusals_per_s: 1.0,
            refusals_burst: 1.0,
            own: Vec::new(),
        }));
        let mut outbox = Outbox::new(true);
        let binding = [&[0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42][..], &[1; 12]].concat();
        let allocate = [&[0, 3, 0, 8, 0x21, 0x12, 0xa4, 0x42][..], &[1; 12], &[0, 0x19, 0, 4, 17, 0, 0, 0]].concat();

        for datagram in [&binding, &allocate, &allocate] {
            assert_eq!(tables.client_datagram(client(), datagram, &mut outbox), Verdict::Done);
        }
        assert_eq!(tables.client_datagram(client(), &binding[..19], &mut outbox), Verdict::Upcall);

        let sizes: Vec<_> = sent(&outbox).iter().map(|(port, to, _, bytes)| (*port, *to, bytes.len())).collect();
        assert_eq!(sizes, [(3478, client(), 32), (3478, client(), 72)]);
        let counted: Vec<_> = tables.counters.each().filter(|(_, value)| *value > 0).collect();
        assert_eq!(counted, [("bindings_answered", 1), ("allocates_refused", 1), ("dropped_refusal_limit", 1)]);
    }

    #[test]
    fn both_ends_may_use_this_relay() {
        let mut tables = tables();
        let other = at("198.51.100.8:40000");
        tables.add_port(50001);
        tables.add_channel(client(), 0x4001, 50000, at("203.0.113.3:50001")).expect("free");
        tables.add_channel(other, 0x4002, 50001, at("203.0.113.3:50000")).expect("free");
        let mut outbox = Outbox::new(true);

        tables.client_datagram(client(), &frame(0x4001, b"hello"), &mut outbox);
        tables.remove_channel(other, 0x4002);
        tables.client_datagram(client(), &frame(0x4001, b"hello"), &mut outbox);

        assert_eq!(sent(&outbox), [(3478, other, 9, frame(0x4002, b"hello"))]);
        assert_eq!(tables.counters.dropped_peer.load(Relaxed), 1);
    }

    #[test]
    fn datagrams_of_one_size_to_one_place_share_a_send() {
        let mut outbox = Outbox::new(true);
        let tables = tables();

        for size in [100, 100, 40, 100] {
            tables.peer_datagram(50000, peer(), &vec![7; size], &mut outbox);
        }

        let sends: Vec<_> = outbox.sends().map(|send| (send.segment, send.contents.len())).collect();
        assert_eq!(sends, [(104, 104 + 104 + 44), (104, 104)]);
    }

    #[test]
    fn a_send_never_exceeds_what_the_kernel_takes() {
        for size in [1, 1000, 1448, 1449, 1500, 9000, 60_000] {
            let mut outbox = Outbox::new(true);
            let tables = tables();
            for _ in 0..200 {
                tables.peer_datagram(50000, peer(), &vec![7; size], &mut outbox);
            }
            let mut datagrams = 0;
            for send in outbox.sends() {
                let segments = send.contents.len().div_ceil(send.segment);
                assert!(segments <= MAX_SEGMENTS && (segments == 1 || send.segment <= MAX_SEGMENT));
                assert!(segments == 1 || send.contents.len() <= MAX_SEND);
                datagrams += segments;
            }
            assert_eq!(datagrams, 200);
        }
    }

    #[test]
    fn nothing_is_joined_if_told_so() {
        let mut outbox = Outbox::new(false);
        let tables = tables();
        for _ in 0..3 {
            tables.peer_datagram(50000, peer(), b"pong", &mut outbox);
        }
        assert_eq!(outbox.sends().count(), 3);
    }

    #[test]
    fn channels_are_one_to_one() {
        let mut tables = tables();
        let other = at("192.0.2.10:1");

        assert_eq!(tables.add_channel(client(), 0x4000, 50000, peer()), Ok(()));
        assert_eq!(tables.add_channel(client(), 0x4000, 50000, other), Err(AddError::Taken));
        assert_eq!(tables.add_channel(client(), 0x4001, 50000, peer()), Err(AddError::Taken));
        assert_eq!(tables.add_channel(client(), 0x4001, 50009, other), Err(AddError::NoSuchPort));
        assert_eq!(tables.channels().count(), 1);
    }

    #[test]
    fn a_closed_port_takes_its_channels_along() {
        let mut tables = tables();
        let mut outbox = Outbox::new(true);

        assert!(tables.remove_port(50000));
        assert!(!tables.remove_port(50000));

        tables.client_datagram(client(), &frame(0x4000, b"x"), &mut outbox);
        tables.peer_datagram(50000, peer(), b"x", &mut outbox);
        assert_eq!(sent(&outbox), []);
        assert!(!tables.remove_channel(client(), 0x4000));
    }

    proptest::proptest! {
        #[test]
        fn any_datagram_is_forwarded_raised_or_counted(datagram in proptest::collection::vec(proptest::num::u8::ANY, 0..40)) {
            let tables = tables();
            let mut outbox = Outbox::new(true);
            let verdict = tables.client_datagram(client(), &datagram, &mut outbox);
            let counted: u64 = tables.counters.each().map(|(_, value)| value).sum();
            proptest::prop_assert_eq!(counted + u64::from(verdict == Verdict::Upcall), 1);
        }
    }
}
