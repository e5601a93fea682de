//! The relay's forwarder as Python sees it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use fastpath::relay::AddError;
use fastpath::strangers::{self, Judgement, Strangers};
use fastpath_io::relay::{Relay, Settings};
use fastpath_io::relay_offload::{self, Mode};
use pyo3::exceptions::{PyKeyError, PyOSError, PyOverflowError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::address::{Addr, to_native, to_python};

/// `(port, remote, payload)`
type Datagram<'py> = (u16, Addr, Bound<'py, PyBytes>);
/// `(client, channel, packets to peer, bytes to peer, packets to client, bytes to client)`
type ChannelRow = (Addr, u16, u64, u64, u64, u64);

fn parse<T: std::str::FromStr>(text: Option<&str>) -> PyResult<Option<T>> {
    text.map(|text| text.parse().map_err(|_| PyValueError::new_err(format!("not an IP address: {text:?}")))).transpose()
}

fn host_of(text: &str) -> PyResult<IpAddr> {
    text.parse().map_err(|_| PyValueError::new_err(format!("not an IP address: {text:?}")))
}

fn refusal(error: AddError) -> PyErr {
    match error {
        AddError::TooManyChannels => PyOverflowError::new_err("too many channels"),
        AddError::NoSuchPort => PyKeyError::new_err("no allocation has this port"),
        AddError::Taken => PyKeyError::new_err("the client, the channel or the peer is taken"),
    }
}

/// Number and payload of channel data, as the forwarder reads it; `None` if it is none.
#[pyfunction]
pub fn decode_channel_data<'py>(py: Python<'py>, datagram: &[u8]) -> Option<(u16, Bound<'py, PyBytes>)> {
    fastpath::relay::decode(datagram).map(|(number, payload)| (number, PyBytes::new(py, payload)))
}

/// What the forwarder does with a STUN message of a stranger at this monotonic time: its answer, `True` if it is for
/// Python but has a good nonce, `False` if it has none.
#[pyfunction]
#[pyo3(signature = (client, datagram, now_s, *, nonce_key, realm, nonce_cookie = Vec::new(), algorithms = Vec::new()))]
#[expect(clippy::too_many_arguments, reason = "keywords of a function")]
pub fn judge_stranger<'py>(
    py: Python<'py>,
    client: Addr,
    datagram: &[u8],
    now_s: f64,
    nonce_key: [u8; 16],
    realm: &str,
    nonce_cookie: Vec<u8>,
    algorithms: Vec<u8>,
) -> PyResult<Bound<'py, PyAny>> {
    let realm = realm.as_bytes().to_vec();
    let strangers = Strangers::new(strangers::Settings {
        nonce_key,
        nonce_cookie,
        algorithms,
        realm,
        refusals_per_s: 1.0,
        refusals_burst: 1.0,
        own: Vec::new(),
    });
    strangers.tick(Duration::try_from_secs_f64(now_s).unwrap_or_default().as_millis() as u64);
    Ok(match strangers.judge(to_native(&client)?, datagram) {
        Judgement::Binding(answer) | Judgement::Refusal(answer) => PyBytes::new(py, &answer).into_any(),
        judgement => (judgement == Judgement::Proven).into_pyobject(py)?.to_owned().into_any(),
    })
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(decode_channel_data, module)?)?;
    module.add_function(wrap_pyfunction!(judge_stranger, module)?)?;
    module.add_class::<RelayIo>()
}

#[pyclass(frozen, module = "wardgate._fastpath")]
pub struct RelayIo(Relay);

#[pymethods]
impl RelayIo {
    #[new]
    #[pyo3(signature = (*, listen_port, bind4, bind6, public4, public6, upcall_capacity = 4096, gso = true, gro = true,
        xdp = None, xdp_mode = "driver", threads = 1))]
    #[expect(clippy::too_many_arguments, reason = "keywords of a constructor")]
    fn new(
        listen_port: u16,
        bind4: Option<&str>,
        bind6: Option<&str>,
        public4: Option<&str>,
        public6: Option<&str>,
        upcall_capacity: usize,
        gso: bool,
        gro: bool,
        xdp: Option<String>,
        xdp_mode: &str,
        threads: usize,
    ) -> PyResult<Self> {
        let mode = match xdp_mode {
            "driver" => Mode::Driver,
            "generic" => Mode::Generic,
            _ => return Err(PyValueError::new_err(format!("neither driver nor generic: {xdp_mode:?}"))),
        };
        let public = [parse::<Ipv4Addr>(public4)?.map(IpAddr::V4), parse::<Ipv6Addr>(public6)?.map(IpAddr::V6)];
        let settings = Settings {
            listen_port,
            bind4: parse(bind4)?,
            bind6: parse(bind6)?,
            public: public.into_iter().flatten().collect(),
            upcall_capacity,
            threads,
            gso,
            gro,
            offload: xdp.map(|interface| relay_offload::Settings { interface, mode }),
        };
        Ok(Self(Relay::open(settings).map_err(PyOSError::new_err)?))
    }

    fn start(&self) -> PyResult<()> {
        self.0.start().map_err(PyOSError::new_err)
    }

    #[pyo3(signature = (timeout_s = 1.0))]
    fn stop(&self, py: Python<'_>, timeout_s: f64) -> bool {
        let timeout = Duration::try_from_secs_f64(timeout_s).unwrap_or_default();
        py.detach(|| self.0.stop(timeout))
    }

    #[pyo3(signature = (*, nonce_key, realm, refusals_per_s, refusals_burst, nonce_cookie = Vec::new(), algorithms = Vec::new()))]
    fn answer_strangers(
        &self,
        nonce_key: [u8; 16],
        realm: &str,
        refusals_per_s: f64,
        refusals_burst: f64,
        nonce_cookie: Vec<u8>,
        algorithms: Vec<u8>,
    ) {
        self.0.answer_strangers(strangers::Settings {
            nonce_key,
            nonce_cookie,
            algorithms,
            realm: realm.as_bytes().to_vec(),
            refusals_per_s,
            refusals_burst,
            own: Vec::new(),
        });
    }

    #[pyo3(signature = (port, *, ipv4, ipv6))]
    fn open_allocation(&self, py: Python<'_>, port: u16, ipv4: bool, ipv6: bool) -> PyResult<()> {
        py.detach(|| self.0.open_allocation(port, ipv4, ipv6)).map_err(PyOSError::new_err)
    }

    #[pyo3(signature = (port, *, ipv4 = true, ipv6 = true))]
    fn close_allocation(&self, py: Python<'_>, port: u16, ipv4: bool, ipv6: bool) -> bool {
        py.detach(|| self.0.close_allocation(port, ipv4, ipv6))
    }

    fn add_channel(&self, py: Python<'_>, client: Addr, channel: u16, port: u16, peer: Addr) -> PyResult<()> {
        let (client, peer) = (to_native(&client)?, to_native(&peer)?);
        py.detach(|| self.0.add_channel(client, channel, port, peer)).map_err(refusal)
    }

    fn add_permission(&self, py: Python<'_>, client: Addr, port: u16, host: &str) -> PyResult<()> {
        let (client, host) = (to_native(&client)?, host_of(host)?);
        py.detach(|| self.0.add_permission(client, port, host)).map_err(refusal)
    }

    fn remove_permission(&self, py: Python<'_>, port: u16, host: &str) -> PyResult<bool> {
        let host = host_of(host)?;
        Ok(py.detach(|| self.0.remove_permission(port, host)))
    }

    fn remove_channel(&self, py: Python<'_>, client: Addr, channel: u16) -> PyResult<bool> {
        let client = to_native(&client)?;
        Ok(py.detach(|| self.0.remove_channel(client, channel)))
    }

    #[expect(clippy::needless_pass_by_value, reason = "what Python hands over")]
    fn send(&self, datagrams: Vec<Datagram<'_>>) -> PyResult<usize> {
        let mut sent = 0;
        for (port, remote, payload) in &datagrams {
            sent += usize::from(self.0.send(*port, to_native(remote)?, payload.as_bytes()));
        }
        Ok(sent)
    }

    #[expect(clippy::needless_pass_by_value, reason = "what Python hands over")]
    fn send_whole(&self, datagrams: Vec<Datagram<'_>>) -> PyResult<usize> {
        let mut sent = 0;
        for (port, remote, payload) in &datagrams {
            sent += usize::from(self.0.send_whole(*port, to_native(remote)?, payload.as_bytes()));
        }
        Ok(sent)
    }

    #[pyo3(signature = (limit = 256))]
    fn poll_upcalls<'py>(&self, py: Python<'py>, limit: usize) -> Vec<Datagram<'py>> {
        let upcalls = py.detach(|| self.0.poll_upcalls(limit));
        upcalls
            .into_iter()
            .map(|upcall| (upcall.port, to_python(upcall.source), PyBytes::new(py, &upcall.payload)))
            .collect()
    }

    fn upcall_fd(&self) -> i32 {
        self.0.upcall_fd()
    }

    fn counters(&self, py: Python<'_>) -> std::collections::HashMap<&'static str, u64> {
        py.detach(|| self.0.counters().into_iter().collect())
    }

    fn is_offloaded(&self) -> bool {
        self.0.is_offloaded()
    }

    fn offload_error(&self) -> Option<&str> {
        self.0.offload_error()
    }

    #[pyo3(signature = (limit = 4096))]
    fn channels(&self, py: Python<'_>, limit: usize) -> Vec<ChannelRow> {
        py.detach(|| {
            let mut rows = Vec::new();
            self.0.each_channel(limit, |channel, [(out_packets, out_bytes), (in_packets, in_bytes)]| {
                rows.push((to_python(channel.client), channel.number, out_packets, out_bytes, in_packets, in_bytes));
            });
            rows
        })
    }

    fn failure(&self) -> Option<String> {
        self.0.failure()
    }
}
