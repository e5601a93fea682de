//! Flows and their figures.

use fastpath::flow::{FlowReport as NativeReport, FlowSpec};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::address::{Addr, to_native, to_python};

#[pyclass(frozen, module = "wardgate._fastpath")]
pub struct Flow(pub FlowSpec);

#[pymethods]
impl Flow {
    #[new]
    #[pyo3(signature = (*, flow_id, peer, authorization, protocol, inner_source, inner_destination, host_source,
        host_destination, from_peer, idle_s, unconfirmed_idle_s, icmp_reply_first = false))]
    #[allow(clippy::too_many_arguments)] // Python names them
    fn new(
        flow_id: u64,
        peer: u32,
        authorization: u64,
        protocol: u8,
        inner_source: Addr,
        inner_destination: Addr,
        host_source: Addr,
        host_destination: Addr,
        from_peer: bool,
        idle_s: f64,
        unconfirmed_idle_s: f64,
        icmp_reply_first: bool,
    ) -> PyResult<Self> {
        let spec = FlowSpec {
            flow_id,
            peer,
            authorization,
            protocol,
            inner_source: to_native(&inner_source)?,
            inner_destination: to_native(&inner_destination)?,
            host_source: to_native(&host_source)?,
            host_destination: to_native(&host_destination)?,
            from_peer,
            idle_s,
            unconfirmed_idle_s,
            icmp_reply_first,
        };
        if spec.keys().is_none() {
            return Err(PyValueError::new_err("the addresses of a flow must be of one family"));
        }
        Ok(Self(spec))
    }
}

#[pyclass(frozen, module = "wardgate._fastpath")]
pub struct FlowReport(pub NativeReport);

#[pymethods]
impl FlowReport {
    #[getter]
    fn flow_id(&self) -> u64 {
        self.0.flow_id
    }

    #[getter]
    fn peer(&self) -> u32 {
        self.0.peer
    }

    #[getter]
    fn authorization(&self) -> u64 {
        self.0.authorization
    }

    #[getter]
    fn protocol(&self) -> u8 {
        self.0.keys.tun.protocol()
    }

    #[getter]
    fn inner_source(&self) -> Addr {
        to_python(self.0.keys.inner().source())
    }

    #[getter]
    fn inner_destination(&self) -> Addr {
        to_python(self.0.keys.inner().destination())
    }

    #[getter]
    fn host_source(&self) -> Addr {
        to_python(self.0.keys.host().source())
    }

    #[getter]
    fn host_destination(&self) -> Addr {
        to_python(self.0.keys.host().destination())
    }

    #[getter]
    fn inside<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.0.keys.inner().side())
    }

    #[getter(from_peer)]
    fn is_from_peer(&self) -> bool {
        self.0.keys.from_peer
    }

    #[getter]
    fn is_translated(&self) -> bool {
        self.0.keys.inner() != self.0.keys.host()
    }

    #[getter]
    fn outbound_packets(&self) -> u64 {
        self.0.outbound_packets
    }

    #[getter]
    fn outbound_bytes(&self) -> u64 {
        self.0.outbound_bytes
    }

    #[getter]
    fn inbound_packets(&self) -> u64 {
        self.0.inbound_packets
    }

    #[getter]
    fn inbound_bytes(&self) -> u64 {
        self.0.inbound_bytes
    }

    #[getter]
    fn created_at(&self) -> f64 {
        self.0.created_at
    }

    #[getter]
    fn last_used_at(&self) -> f64 {
        self.0.last_used_at
    }

    #[getter]
    fn finished(&self) -> &'static str {
        self.0.finished
    }
}
