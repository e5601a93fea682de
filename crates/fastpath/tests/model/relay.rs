//! The relay's forwarding against lists of channels and permissions that are searched from their start.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use fastpath::relay::{Outbox, Tables, Verdict};

use super::choices::Choices;

const LISTEN: u16 = 3478;
const PUBLIC: &str = "203.0.113.3";

/// One channel as the model has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Channel {
    client: SocketAddr,
    number: u16,
    port: u16,
    peer: SocketAddr,
}

/// A datagram on its way out: from which port, to whom.
type Sent = (u16, SocketAddr, Vec<u8>);

/// One permission as the model has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Permission {
    client: SocketAddr,
    port: u16,
    host: IpAddr,
}

struct Model {
    ports: Vec<u16>,
    channels: Vec<Channel>,
    permissions: Vec<Permission>,
    /// Whose each port is that ever had a permission.
    owners: Vec<(SocketAddr, u16)>,
}

pub fn check(bytes: &[u8]) {
    let mut choices = Choices::new(bytes);
    let mut tables = Tables::new(LISTEN, vec![PUBLIC.parse().expect("an address")]);
    let mut model = Model { ports: Vec::new(), channels: Vec::new(), permissions: Vec::new(), owners: Vec::new() };
    for port in 50_000..50_003 {
        tables.add_port(port);
        model.ports.push(port);
    }
    for _ in 0..choices.within(1..=6) {
        for _ in 0..choices.within(0..=6) {
            model.change(&mut choices, &mut tables);
        }
        let mut outbox = Outbox::new(!choices.one_in(5));
        let mut expected = Vec::new();
        for _ in 0..choices.within(0..=30) {
            let repeats = if choices.one_in(8) { choices.within(1..=80) } else { 1 };
            expected.extend(model.datagrams(&mut choices, &tables, &mut outbox, repeats));
        }
        assert_eq!(sent(&outbox), expected);
    }
}

fn clients(choices: &mut Choices) -> SocketAddr {
    choices.pick(&["198.51.100.1:5000", "198.51.100.1:5001", "[2001:db8::1]:5000", "198.51.100.1:0"]).parse().unwrap()
}

fn peers(choices: &mut Choices) -> SocketAddr {
    let known = ["192.0.2.9:40000", "192.0.2.10:40000", "203.0.113.3:50000", "203.0.113.3:50001", "203.0.113.3:50009"];
    choices.pick(&known).parse().unwrap()
}

impl Model {
    fn change(&mut self, choices: &mut Choices, tables: &mut Tables) {
        let (client, number) = (clients(choices), choices.pick(&[0x4000, 0x4001, 0x7fff]));
        let (port, peer) = (choices.pick(&[50_000, 50_001, 50_002, 50_009]), peers(choices));
        match choices.within(0..=10) {
            8 | 9 => {
                let wanted = Permission { client, port, host: peer.ip() };
                let mut rivals = self.owners.iter().filter(|(one, own)| (*one == client) != (*own == port));
                let is_fine = self.ports.contains(&port) && rivals.next().is_none();
                assert_eq!(tables.add_permission(client, port, peer.ip()).is_ok(), is_fine);
                if is_fine {
                    self.owners.push((client, port));
                    self.permissions.push(wanted);
                }
            }
            10 => {
                let known = self.permissions.len();
                self.permissions.retain(|one| (one.port, one.host) != (port, peer.ip()));
                assert_eq!(tables.remove_permission(port, peer.ip()), self.permissions.len() < known);
            }
            0 => {
                let known = self.channels.len();
                self.channels.retain(|one| (one.client, one.number) != (client, number));
                assert_eq!(tables.remove_channel(client, number), self.channels.len() < known);
            }
            1 => {
                let is_open = self.ports.contains(&port);
                self.ports.retain(|one| *one != port);
                self.channels.retain(|one| one.port != port);
                self.permissions.retain(|one| one.port != port);
                self.owners.retain(|(_, own)| *own != port);
                assert_eq!(tables.remove_port(port), is_open);
            }
            2 if !self.ports.contains(&port) => {
                tables.add_port(port);
                self.ports.push(port);
            }
            _ => {
                let wanted = Channel { client, number, port, peer };
                let is_taken = |one: &Channel| {
                    (one.client, one.number) == (client, number) || (one.port, one.peer) == (port, peer)
                };
                let is_fine = self.ports.contains(&port)
                    && (self.channels.contains(&wanted) || !self.channels.iter().any(is_taken));
                assert_eq!(tables.add_channel(client, number, port, peer).is_ok(), is_fine);
                if is_fine && !self.channels.contains(&wanted) {
                    self.channels.push(wanted);
                }
            }
        }
        assert_eq!(tables.channels().count(), self.channels.len());
    }

    fn datagrams(&self, choices: &mut Choices, tables: &Tables, outbox: &mut Outbox, repeats: usize) -> Vec<Sent> {
        let size = choices.pick(&[0, 1, 100, 1312, 1452, 1453, 9000, 65_000]);
        let len = if choices.flag() { size } else { choices.within(0..=1400) };
        let payload = choices.contents(len);
        let mut expected = Vec::new();
        if choices.flag() {
            let (port, peer) = (choices.pick(&[50_000, 50_001, 50_002]), peers(choices));
            for _ in 0..repeats {
                tables.peer_datagram(port, peer, &payload, outbox);
                expected.extend(self.peer_sends(port, peer, &payload));
            }
            return expected;
        }
        let client = clients(choices);
        let mut frame = choices.pick(&[0x4000_u16, 0x4001, 0x7fff, 0x8000]).to_be_bytes().to_vec();
        frame.extend((payload.len() as u16).to_be_bytes());
        frame.extend(&payload);
        match choices.within(0..=11) {
            0 => frame.truncate(choices.within(0..=frame.len())),
            1 => frame.extend(choices.contents(3)),
            2 => frame = choices.raw(40),
            3..=5 => return self.indications(choices, tables, outbox, &payload),
            _ => {}
        }
        for _ in 0..repeats {
            let verdict = tables.client_datagram(client, &frame, outbox);
            let is_stun = client.port() != 0 && frame.first().is_some_and(|first| *first < 4) && !is_send(&frame);
            assert_eq!(verdict == Verdict::Upcall, is_stun);
            expected.extend(self.client_sends(client, &frame));
        }
        expected
    }

    fn indications(&self, choices: &mut Choices, tables: &Tables, outbox: &mut Outbox, payload: &[u8]) -> Vec<Sent> {
        let (client, peer) = (clients(choices), peers(choices));
        if payload.len() > 60_000 {
            return Vec::new();
        }
        let message = indication(0x16, peer, payload);
        assert_eq!(tables.client_datagram(client, &message, outbox), Verdict::Done);
        let owned = self.owners.iter().find(|(one, _)| *one == client);
        owned
            .filter(|(_, port)| client.port() != 0 && self.is_permitted(*port, peer.ip()))
            .and_then(|(_, port)| self.to_peer(*port, peer, payload))
            .into_iter()
            .collect()
    }

    fn is_permitted(&self, port: u16, host: IpAddr) -> bool {
        self.permissions.iter().any(|one| (one.port, one.host) == (port, host))
    }

    fn to_peer(&self, port: u16, peer: SocketAddr, payload: &[u8]) -> Option<Sent> {
        if peer.ip().to_string() != PUBLIC {
            return Some((port, peer, payload.to_vec()));
        }
        let is_ours = self.ports.contains(&peer.port());
        is_ours.then(|| self.peer_sends(peer.port(), SocketAddr::new(peer.ip(), port), payload)).flatten()
    }

    fn client_sends(&self, client: SocketAddr, frame: &[u8]) -> Option<Sent> {
        let number = u16::from_be_bytes([*frame.first()?, *frame.get(1)?]);
        let len = usize::from(u16::from_be_bytes([*frame.get(2)?, *frame.get(3)?]));
        let payload = frame.get(4..4 + len)?;
        let is_channel = client.port() != 0 && (0x4000..=0x7fff).contains(&number);
        let channel = self.channels.iter().find(|one| is_channel && (one.client, one.number) == (client, number))?;
        self.to_peer(channel.port, channel.peer, payload)
    }

    fn peer_sends(&self, port: u16, peer: SocketAddr, payload: &[u8]) -> Option<Sent> {
        let Some(channel) = self.channels.iter().find(|one| (one.port, one.peer) == (port, peer)) else {
            let (client, _) = self.owners.iter().find(|(_, own)| *own == port)?;
            return self.is_permitted(port, peer.ip()).then(|| (LISTEN, *client, indication(0x17, peer, payload)));
        };
        let mut frame = channel.number.to_be_bytes().to_vec();
        frame.extend((payload.len() as u16).to_be_bytes());
        frame.extend(payload);
        Some((LISTEN, channel.client, frame))
    }
}

fn is_send(frame: &[u8]) -> bool {
    frame.starts_with(&[0, 0x16])
}

/// A Send (0x16) or Data (0x17) indication for an IPv4 peer; its transaction is all zero.
fn indication(kind: u8, peer: SocketAddr, payload: &[u8]) -> Vec<u8> {
    const COOKIE: u32 = 0x2112_a442;
    let IpAddr::V4(ip) = peer.ip() else { unreachable!("peers of the model have IPv4 addresses") };
    let padded = payload.len().next_multiple_of(4);
    let mut bytes = vec![0, kind];
    bytes.extend((16 + padded as u16).to_be_bytes());
    bytes.extend(COOKIE.to_be_bytes());
    bytes.extend([0; 12]);
    bytes.extend([0, 0x12, 0, 8, 0, 1]);
    bytes.extend((peer.port() ^ 0x2112).to_be_bytes());
    bytes.extend((Ipv4Addr::to_bits(ip) ^ COOKIE).to_be_bytes());
    bytes.extend([0, 0x13]);
    bytes.extend((payload.len() as u16).to_be_bytes());
    bytes.extend(payload);
    bytes.resize(36 + padded, 0);
    bytes
}

/// The datagrams that the kernel makes of the outbox, whose sends it must take.
fn sent(outbox: &Outbox) -> Vec<Sent> {
    let mut all = Vec::new();
    for send in outbox.sends() {
        let pieces: Vec<Vec<u8>> = match send.contents {
            [] => vec![Vec::new()],
            contents => contents.chunks(send.segment).map(<[u8]>::to_vec).collect(),
        };
        assert!(pieces.len() <= 64 && (pieces.len() == 1 || send.segment <= 1452));
        assert!(pieces.len() == 1 || send.contents.len() <= 65_507);
        all.extend(pieces.into_iter().map(|mut piece| {
            if send.port == LISTEN && piece.starts_with(&[0, 0x17]) {
                piece[8..20].fill(0);
            }
            (send.port, send.remote, piece)
        }));
    }
    all
}
