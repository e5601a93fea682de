//! Upcalls as Python sees them.

use fastpath::upcall::{SessionEvent, Upcall};
use pyo3::IntoPyObjectExt;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::address::{Addr, to_python};

#[pyclass(frozen, get_all, module = "wardgate._fastpath")]
pub struct PacketUpcall {
    peer: Option<u32>,
    packet: Py<PyBytes>,
    local: Option<Addr>,
    remote: Option<Addr>,
    channel: Option<u16>,
}

#[pyclass(frozen, get_all, module = "wardgate._fastpath")]
pub struct DatagramUpcall {
    local: Addr,
    remote: Addr,
    payload: Py<PyBytes>,
}

#[pyclass(frozen, get_all, module = "wardgate._fastpath")]
pub struct SessionUpcall {
    kind: &'static str,
    peer: u32,
    local_index: u32,
}

pub fn convert(py: Python<'_>, upcall: Upcall) -> PyResult<Py<PyAny>> {
    match upcall {
        Upcall::Packet { peer, packet, arrival } => PacketUpcall {
            peer,
            packet: PyBytes::new(py, &packet).unbind(),
            local: arrival.map(|arrival| to_python(arrival.local)),
            remote: arrival.map(|arrival| to_python(arrival.remote)),
            channel: arrival.and_then(|arrival| arrival.channel),
        }
        .into_py_any(py),
        Upcall::Datagram { local, remote, payload } => DatagramUpcall {
            local: to_python(local),
            remote: to_python(remote),
            payload: PyBytes::new(py, &payload).unbind(),
        }
        .into_py_any(py),
        Upcall::Session { event, peer, local_index } => {
            let kind = match event {
                SessionEvent::Confirmed => "confirmed",
                SessionEvent::Missing => "missing",
                SessionEvent::Exhausted => "exhausted",
            };
            SessionUpcall { kind, peer, local_index }.into_py_any(py)
        }
    }
}
