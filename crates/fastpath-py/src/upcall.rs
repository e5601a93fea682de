//! Upcalls as Python sees them.

use fastpath::install::Miss;
use fastpath::upcall::{SessionEvent, Upcall};
use pyo3::IntoPyObjectExt;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::address::{Addr, to_python};

/// Made for each packet that misses, so it converts what is asked for and no more.
#[pyclass(frozen, module = "wardgate._fastpath")]
pub struct PacketUpcall(pub Miss);

#[pymethods]
impl PacketUpcall {
    #[staticmethod]
    fn of(peer: Option<u32>, packet: Vec<u8>) -> PyResult<Self> {
        let refused = |error| PyValueError::new_err(format!("not a packet that can pass: {error:?}"));
        Miss::parse(peer, packet).map(Self).map_err(refused)
    }

    #[getter]
    fn peer(&self) -> Option<u32> {
        self.0.peer
    }

    #[getter]
    fn packet<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.0.packet)
    }

    #[getter]
    fn local(&self) -> Option<Addr> {
        self.0.arrival.map(|arrival| to_python(arrival.local))
    }

    #[getter]
    fn remote(&self) -> Option<Addr> {
        self.0.arrival.map(|arrival| to_python(arrival.remote))
    }

    #[getter]
    fn channel(&self) -> Option<u16> {
        self.0.arrival.and_then(|arrival| arrival.channel)
    }

    #[getter]
    fn target<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyBytes>> {
        self.0.key().map(|key| PyBytes::new(py, &key.target()))
    }

    #[getter]
    fn inside<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyBytes>> {
        self.0.key().map(|key| PyBytes::new(py, &key.side()))
    }
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
        Upcall::Packet(miss) => PacketUpcall(miss).into_py_any(py),
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
                SessionEvent::Woken => "woken",
            };
            SessionUpcall { kind, peer, local_index }.into_py_any(py)
        }
    }
}
