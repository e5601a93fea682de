//! From the TUN device to the network: one flow lookup for a super-packet, then its segments written to where they are sealed.

use std::sync::Arc;

use crate::counters::{add, count};
use crate::engine::Engine;
use crate::flow::Flow;
use crate::install::Miss;
use crate::packet::{Headers, ecn};
use crate::peer::Peer;
use crate::send_queue::{Destination, SendQueue};
use crate::session::{HEADER_LEN, OVERHEAD, TAG_LEN};
use crate::split::{Split, finish_checksum};
use crate::upcall::{SessionEvent, Upcall};
use crate::virtio::{Gso, VnetHeader};

/// Length of a TURN channel data header.
pub const CHANNEL_HEADER_LEN: usize = 4;

/// What one thread keeps between packets: the flow of the last one.
#[derive(Default)]
pub struct FromTun {
    last: Option<Arc<Flow>>,
}

impl FromTun {
    /// Handles one read of the TUN device; datagrams go to `queue`. `packet` is changed.
    pub fn handle(&mut self, engine: &Engine, header: VnetHeader, packet: &mut [u8], now: f64, queue: &mut SendQueue) {
        let headers = match Headers::parse(packet) {
            Ok(headers) => headers,
            Err(error) => return engine.count_refused(error),
        };
        let packet = &mut packet[..headers.len];
        let split = match prepare(header, &headers, packet) {
            Ok(split) => split,
            Err(_) => return count(&engine.counters.offload_refused),
        };
        if split.as_ref().map_or(headers.len, Split::longest) > engine.mtu {
            return count(&engine.counters.packets_too_long);
        }
        match self.lookup(engine, &headers, now) {
            Some(flow) => forward(engine, &flow, &headers, split.as_ref(), packet, now, queue),
            None => miss(engine, split.as_ref(), packet),
        }
    }

    fn lookup(&mut self, engine: &Engine, headers: &Headers, now: f64) -> Option<Arc<Flow>> {
        let key = headers.key?;
        if let Some(flow) = &self.last
            && flow.keys.tun == key
            && flow.admits(headers, now)
        {
            return Some(Arc::clone(flow));
        }
        self.last = engine.read().flow_from_tun(&key).filter(|flow| flow.admits(headers, now)).cloned();
        self.last.clone()
    }
}

/// How the packet is to be cut, if at all; a single one gets the checksum that the kernel left out.
fn prepare(
    header: VnetHeader,
    headers: &Headers,
    packet: &mut [u8],
) -> Result<Option<Split>, crate::split::BadOffload> {
    if header.gso != Gso::None {
        return Split::new(&header, headers).map(Some);
    }
    if header.needs_checksum {
        finish_checksum(&header, packet)?;
    }
    Ok(None)
}

fn miss(engine: &Engine, split: Option<&Split>, packet: &[u8]) {
    let first = match split {
        None => packet.to_vec(),
        Some(split) => {
            add(&engine.counters.segments_dropped_unknown_flow, split.segments - 1);
            let mut first = vec![0; split.len(0)];
            split.write(packet, 0, &mut first);
            first
        }
    };
    match Miss::parse(None, first) {
        Ok(miss) => engine.push(Upcall::Packet(miss)),
        Err(error) => engine.count_refused(error),
    }
}

pub(crate) fn forward(
    engine: &Engine,
    flow: &Flow,
    headers: &Headers,
    split: Option<&Split>,
    packet: &mut [u8],
    now: f64,
    queue: &mut SendQueue,
) {
    let segments = split.map_or(1, |split| split.segments);
    let bytes = split.map_or(headers.len, Split::total);
    let peer = &flow.peer;
    let Some(path) = peer.path() else {
        return add(&engine.counters.dropped_no_path, segments);
    };
    let Some(session) = peer.sending(now) else {
        add(&engine.counters.dropped_no_session, segments);
        return report_missing(engine, peer, now);
    };
    let Some(first_counter) = engine.take_counters(&session, segments) else {
        return add(&engine.counters.dropped_no_session, segments);
    };
    flow.note(flow.to_peer_direction(), segments, bytes, headers.tcp_flags, now);
    flow.rewrite_to_peer(packet, headers);
    let to = Destination { local: path.local, remote: path.remote, ecn: ecn(packet) };
    let front = if path.channel.is_some() { CHANNEL_HEADER_LEN } else { 0 };
    for index in 0..segments {
        let len = split.map_or(headers.len, |split| split.len(index));
        let datagram = queue.append_message(to, front, len + OVERHEAD, &session, first_counter + index as u64);
        let (channel_header, message) = datagram.split_at_mut(front);
        if let Some(channel) = path.channel {
            channel_header[..2].copy_from_slice(&channel.to_be_bytes());
            // A packet is at most the MTU long.
            channel_header[2..].copy_from_slice(&((len + OVERHEAD) as u16).to_be_bytes());
        }
        let room = HEADER_LEN..len + OVERHEAD - TAG_LEN;
        match split {
            Some(split) => split.write(packet, index, &mut message[room]),
            None => message[room].copy_from_slice(packet),
        }
    }
    peer.note_sent(segments, bytes, now);
    engine.wake(peer);
    add(&engine.counters.packets_sealed, segments);
    add(&engine.counters.bytes_sealed, bytes);
}

fn report_missing(engine: &Engine, peer: &Peer, now: f64) {
    if peer.reports_missing(now) {
        engine.push(Upcall::Session { event: SessionEvent::Missing, peer: peer.index, local_index: 0 });
    }
}
