//! The engine as Python sees it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use fastpath::engine::{Datagram as NativeDatagram, Engine as Native, Limits};
use fastpath::flow::FlowReport as NativeReport;
use fastpath::install::{Decided, Exception, IdleTimes};
use fastpath::packet::FlowKey;
use fastpath::peer::Path;
use fastpath::tables::{Bounds, TableError};
use fastpath_io::event::Event;
use pyo3::exceptions::{PyKeyError, PyOSError, PyOverflowError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::address::{Addr, to_native, to_python};
use crate::flow::{Flow, FlowReport};
use crate::noise::Keypair;
use crate::upcall::{self, PacketUpcall};

fn refused(error: TableError) -> PyErr {
    match error {
        TableError::TooManyPeers => PyOverflowError::new_err("too many peers"),
        TableError::IndexTaken => PyKeyError::new_err("the local index is taken"),
        TableError::MixedFamilies => PyValueError::new_err("the addresses of a flow must be of one family"),
    }
}

fn reports(native: Vec<NativeReport>) -> Vec<FlowReport> {
    native.into_iter().map(FlowReport).collect()
}

fn packets(py: Python<'_>, packets: Vec<Vec<u8>>) -> Vec<Bound<'_, PyBytes>> {
    packets.iter().map(|packet| PyBytes::new(py, packet)).collect()
}

/// `(local, remote, payload)`
type Datagram<'py> = (Option<Addr>, Addr, Bound<'py, PyBytes>);

fn datagram(py: Python<'_>, (local, remote, payload): NativeDatagram) -> Datagram<'_> {
    (local.map(to_python), to_python(remote), PyBytes::new(py, &payload))
}

/// `(upcall, peer, authorization, outside)`
type OneDecided<'py> = (Bound<'py, PacketUpcall>, u32, u64, Bound<'py, PyBytes>);

/// Packets for the TUN device, datagrams, and what did not become a new flow, by position.
type Passed<'py> = (Vec<Bound<'py, PyBytes>>, Vec<Datagram<'py>>, Vec<(usize, &'static str)>);

#[pyclass(frozen, get_all, module = "wardgate._fastpath")]
#[derive(Default)]
pub struct PeerActivity {
    last_data_sent_at: f64,
    last_data_received_at: f64,
    last_sent_at: f64,
    last_received_at: f64,
    first_unanswered_at: f64,
    last_flow_packet_at: f64,
    sent_packets: u64,
    sent_bytes: u64,
    received_packets: u64,
    received_bytes: u64,
    sending_index: u32,
}

#[pyclass(frozen, module = "wardgate._fastpath")]
pub struct Engine {
    pub native: Arc<Native>,
    waiting: Event,
}

#[pymethods]
impl Engine {
    #[new]
    #[pyo3(signature = (*, max_peers = 16384, max_flows = 262_144, max_flows_per_peer = 65536, upcall_capacity = 4096,
        upcalls_per_peer = 1024, mtu = 1280))]
    fn new(
        max_peers: usize,
        max_flows: usize,
        max_flows_per_peer: usize,
        upcall_capacity: usize,
        upcalls_per_peer: usize,
        mtu: usize,
    ) -> PyResult<Self> {
        if !(576..=9000).contains(&mtu) {
            return Err(PyValueError::new_err(format!("mtu must be 576 to 9000, not {mtu}")));
        }
        let waiting = Event::new().map_err(PyOSError::new_err)?;
        let limits = Limits {
            tables: Bounds { peers: max_peers, flows: max_flows, flows_per_peer: max_flows_per_peer },
            upcalls: upcall_capacity,
            upcalls_per_peer,
            mtu,
        };
        Ok(Self { native: Arc::new(Native::new(limits, Box::new(waiting.clone()))), waiting })
    }

    #[pyo3(signature = (peer, keypair, now, initiator_stops_after_s = 180.0))]
    fn add_session(&self, peer: u32, keypair: &Keypair, now: f64, initiator_stops_after_s: f64) -> PyResult<()> {
        let keys = keypair.take().ok_or_else(|| PyValueError::new_err("the keypair was used before"))?;
        let added = self.native.add_session(peer, &keys, now, initiator_stops_after_s);
        if added.is_err() {
            keypair.put_back(keys);
        }
        added.map_err(refused)
    }

    fn remove_session(&self, local_index: u32) -> bool {
        self.native.remove_session(local_index)
    }

    #[pyo3(signature = (peer, local, remote, channel = None))]
    fn set_path(&self, peer: u32, local: Option<Addr>, remote: Addr, channel: Option<u16>) -> PyResult<()> {
        let local = local.as_ref().map(to_native).transpose()?;
        let path = Path { local, remote: to_native(&remote)?, channel };
        self.native.set_path(peer, path).map_err(refused)
    }

    fn clear_path(&self, peer: u32) {
        self.native.clear_path(peer);
    }

    fn add_channel(&self, relay: Addr, channel: u16) -> PyResult<()> {
        self.native.add_channel(to_native(&relay)?, channel);
        Ok(())
    }

    fn remove_channel(&self, relay: Addr, channel: u16) -> PyResult<()> {
        self.native.remove_channel(to_native(&relay)?, channel);
        Ok(())
    }

    fn add_relay(&self, relay: Addr) -> PyResult<()> {
        self.native.add_relay(to_native(&relay)?);
        Ok(())
    }

    fn remove_relay(&self, relay: Addr) -> PyResult<()> {
        self.native.remove_relay(to_native(&relay)?);
        Ok(())
    }

    fn remove_peer(&self, py: Python<'_>, peer: u32) -> Vec<FlowReport> {
        reports(py.detach(|| self.native.remove_peer(peer)))
    }

    fn add_flow(&self, flow: &Flow, now: f64) -> PyResult<bool> {
        self.native.add_flow(flow.0.clone(), now).map_err(refused)
    }

    fn remove_flow(&self, flow_id: u64) -> Option<FlowReport> {
        self.native.remove_flow(flow_id).map(FlowReport)
    }

    #[pyo3(signature = (peer, authorization = None))]
    fn remove_flows(&self, py: Python<'_>, peer: u32, authorization: Option<u64>) -> Vec<FlowReport> {
        reports(py.detach(|| self.native.remove_flows(peer, authorization)))
    }

    #[pyo3(signature = (now, limit = 4096))]
    fn expire_flows(&self, py: Python<'_>, now: f64, limit: usize) -> Vec<FlowReport> {
        reports(py.detach(|| self.native.expire_flows(now, limit)))
    }

    #[pyo3(signature = (limit = 4096, after = 0))]
    fn flows(&self, py: Python<'_>, limit: usize, after: u64) -> Vec<FlowReport> {
        reports(py.detach(|| self.native.flows(after, limit)))
    }

    fn flow_count(&self) -> usize {
        self.native.flow_count()
    }

    fn flow_by_host(
        &self,
        protocol: u8,
        source: Addr,
        destination: Addr,
        from_peer: bool,
    ) -> PyResult<Option<FlowReport>> {
        let (source, destination) = (to_native(&source)?, to_native(&destination)?);
        let host = FlowKey::new(protocol, source, destination, false);
        Ok(host.and_then(|host| self.native.flow_by_host(&host, from_peer)).map(FlowReport))
    }

    fn traffic(&self, py: Python<'_>) -> HashMap<u64, (u64, u64, u64, u64)> {
        let totals = py.detach(|| self.native.traffic());
        totals.into_iter().map(|(authorization, [a, b, c, d])| (authorization, (a, b, c, d))).collect()
    }

    fn install<'py>(
        &self,
        py: Python<'py>,
        decided: Vec<OneDecided<'py>>,
        now: f64,
        idle_s: (f32, f32, f32),
    ) -> PyResult<Passed<'py>> {
        let (tcp_s, other_s, unconfirmed_s) = idle_s;
        let times = IdleTimes { tcp_s, other_s, unconfirmed_s };
        let outsides: Vec<&[u8]> = decided.iter().map(|one| one.3.as_bytes()).collect();
        let native: Option<Vec<Decided<'_>>> = decided
            .iter()
            .zip(&outsides)
            .map(|((miss, peer, authorization, _), outside)| {
                Decided::new(&miss.get().0, *peer, *authorization, outside, times)
            })
            .collect();
        let native = native.ok_or_else(|| PyValueError::new_err("a packet opens no flow, or cannot look like that"))?;
        let passed = py.detach(|| self.native.install(&native, now));
        let exceptions = passed.exceptions.into_iter().map(|(position, what)| {
            let word = match what {
                Exception::Known => "known",
                Exception::Full => "full",
                Exception::Taken => "taken",
            };
            (position, word)
        });
        let datagrams = passed.datagrams.into_iter().map(|one| datagram(py, one)).collect();
        Ok((packets(py, passed.packets), datagrams, exceptions.collect()))
    }

    #[pyo3(signature = (peer, packet, now, expects_answer = true))]
    fn seal<'py>(
        &self,
        py: Python<'py>,
        peer: u32,
        packet: &[u8],
        now: f64,
        expects_answer: bool,
    ) -> Option<Bound<'py, PyBytes>> {
        self.native.seal(peer, packet, now, expects_answer).map(|message| PyBytes::new(py, &message))
    }

    fn handle_tun<'py>(&self, py: Python<'py>, packet: &[u8], now: f64) -> Vec<Datagram<'py>> {
        self.native.handle_tun(packet, now).into_iter().map(|one| datagram(py, one)).collect()
    }

    fn handle_datagram<'py>(
        &self,
        py: Python<'py>,
        local: Addr,
        remote: Addr,
        payload: &[u8],
        now: f64,
    ) -> PyResult<Vec<Bound<'py, PyBytes>>> {
        let (local, remote) = (to_native(&local)?, to_native(&remote)?);
        Ok(packets(py, self.native.handle_datagram(local, remote, payload, now)))
    }

    fn handle_inner<'py>(&self, py: Python<'py>, peer: u32, packet: &[u8], now: f64) -> Vec<Bound<'py, PyBytes>> {
        packets(py, self.native.handle_inner(peer, packet, now))
    }

    #[pyo3(signature = (limit = 256))]
    fn poll_upcalls(&self, py: Python<'_>, limit: usize) -> PyResult<Vec<Py<PyAny>>> {
        let upcalls = self.native.ring.poll(limit);
        upcalls.into_iter().map(|one| upcall::convert(py, one)).collect()
    }

    fn upcall_fd(&self) -> i32 {
        self.waiting.fd()
    }

    fn sleep(&self, peer: u32) {
        self.native.sleep(peer);
    }

    fn next_flow_due(&self) -> Option<f64> {
        self.native.next_flow_due()
    }

    fn activity(&self, peer: u32) -> PeerActivity {
        let Some(peer) = self.native.peer(peer) else { return PeerActivity::default() };
        let activity = &peer.activity;
        PeerActivity {
            last_data_sent_at: activity.last_data_sent_at.get(),
            last_data_received_at: activity.last_data_received_at.get(),
            last_sent_at: activity.last_sent_at.get(),
            last_received_at: activity.last_received_at.get(),
            first_unanswered_at: activity.first_unanswered_at.get(),
            last_flow_packet_at: activity.last_flow_packet_at.get(),
            sent_packets: activity.sent_packets.load(Relaxed),
            sent_bytes: activity.sent_bytes.load(Relaxed),
            received_packets: activity.received_packets.load(Relaxed),
            received_bytes: activity.received_bytes.load(Relaxed),
            sending_index: peer.sending_index(),
        }
    }

    fn counters(&self) -> std::collections::BTreeMap<&'static str, u64> {
        self.native.counters.each().collect()
    }
}
