//! Flows and their figures.

use fastpath::flow::{FlowReport as NativeReport, FlowSpec};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

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

#[pyclass(frozen, get_all, module = "wardgate._fastpath")]
pub struct FlowReport {
    flow_id: u64,
    peer: u32,
    authorization: u64,
    protocol: u8,
    inner_source: Addr,
    inner_destination: Addr,
    host_source: Addr,
    host_destination: Addr,
    from_peer: bool,
    outbound_packets: u64,
    outbound_bytes: u64,
    inbound_packets: u64,
    inbound_bytes: u64,
    created_at: f64,
    last_used_at: f64,
    finished: &'static str,
}

impl From<NativeReport> for FlowReport {
    fn from(report: NativeReport) -> Self {
        let spec = report.spec;
        Self {
            flow_id: spec.flow_id,
            peer: spec.peer,
            authorization: spec.authorization,
            protocol: spec.protocol,
            inner_source: to_python(spec.inner_source),
            inner_destination: to_python(spec.inner_destination),
            host_source: to_python(spec.host_source),
            host_destination: to_python(spec.host_destination),
            from_peer: spec.from_peer,
            outbound_packets: report.outbound_packets,
            outbound_bytes: report.outbound_bytes,
            inbound_packets: report.inbound_packets,
            inbound_bytes: report.inbound_bytes,
            created_at: report.created_at,
            last_used_at: report.last_used_at,
            finished: report.finished,
        }
    }
}
