//! The relay's forwarding against a list of channels that is searched from its start.

use std::net::SocketAddr;

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

struct Model {
    ports: Vec<u16>,
    channels: Vec<Channel>,
}

pub fn check(bytes: &[u8]) {
    let mut choices = Choices::new(bytes);
    let mut tables = Tables::new(LISTEN, vec![PUBLIC.parse().expect("an address")]);
    let mut model = Model { ports: Vec::new(), channels: Vec::new() };
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
        match choices.within(0..=7) {
            0 => {
                let known = self.channels.len();
                self.channels.retain(|one| (one.client, one.number) != (client, number));
                assert_eq!(tables.remove_channel(client, number), self.channels.len() < known);
            }
            1 => {
                let is_open = self.ports.contains(&port);
                self.ports.retain(|one| *one != port);
                self.channels.retain(|one| one.port != port);
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
            _ => {}
        }
        for _ in 0..repeats {
            let verdict = tables.client_datagram(client, &frame, outbox);
            let is_stun = client.port() != 0 && frame.first().is_some_and(|first| *first < 4);
            assert_eq!(verdict == Verdict::Upcall, is_stun);
            expected.extend(self.client_sends(client, &frame));
        }
        expected
    }

    fn client_sends(&self, client: SocketAddr, frame: &[u8]) -> Option<Sent> {
        let number = u16::from_be_bytes([*frame.first()?, *frame.get(1)?]);
        let len = usize::from(u16::from_be_bytes([*frame.get(2)?, *frame.get(3)?]));
        let payload = frame.get(4..4 + len)?;
        let is_channel = client.port() != 0 && (0x4000..=0x7fff).contains(&number);
        let channel = self.channels.iter().find(|one| is_channel && (one.client, one.number) == (client, number))?;
        let is_ours = channel.peer.ip().to_string() == PUBLIC && self.ports.contains(&channel.peer.port());
        if is_ours {
            let own = SocketAddr::new(channel.peer.ip(), channel.port);
            return self.peer_sends(channel.peer.port(), own, payload);
        }
        Some((channel.port, channel.peer, payload.to_vec()))
    }

    fn peer_sends(&self, port: u16, peer: SocketAddr, payload: &[u8]) -> Option<Sent> {
        let channel = self.channels.iter().find(|one| (one.port, one.peer) == (port, peer))?;
        let mut frame = channel.number.to_be_bytes().to_vec();
        frame.extend((payload.len() as u16).to_be_bytes());
        frame.extend(payload);
        Some((LISTEN, channel.client, frame))
    }
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
        all.extend(pieces.into_iter().map(|piece| (send.port, send.remote, piece)));
    }
    all
}
