//! The TUN device and the threads as Python sees them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fastpath_io::threads::{TunnelIo as NativeIo, UdpOffloads};
use fastpath_io::tun::Tun;
use pyo3::exceptions::{PyOSError, PyValueError};
use pyo3::prelude::*;

use crate::address::{Addr, to_native};
use crate::engine::Engine;

#[pyclass(frozen, module = "wardgate._fastpath")]
pub struct TunDevice {
    #[pyo3(get)]
    name: String,
    #[pyo3(get)]
    index: u32,
    #[pyo3(get)]
    offload: bool,
    tun: Mutex<Option<Arc<Tun>>>,
}

impl TunDevice {
    fn tun(&self) -> PyResult<Arc<Tun>> {
        let tun = self.tun.lock().unwrap_or_else(PoisonError::into_inner);
        tun.clone().ok_or_else(|| PyOSError::new_err("the TUN device is closed"))
    }
}

#[pymethods]
impl TunDevice {
    #[staticmethod]
    #[pyo3(signature = (name, *, mtu = 1280, offload = true))]
    fn open(name: &str, mtu: u16, offload: bool) -> PyResult<Self> {
        let tun = Tun::open(name, mtu, offload)?;
        Ok(Self {
            name: tun.name.clone(),
            index: tun.index,
            offload: tun.offloads.tcp,
            tun: Mutex::new(Some(Arc::new(tun))),
        })
    }

    fn close(&self) {
        self.tun.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

#[pyclass(frozen, module = "wardgate._fastpath")]
pub struct TunnelIo(NativeIo);

#[pymethods]
impl TunnelIo {
    #[new]
    #[pyo3(signature = (engine, tun, *, udp4_fd, udp6_fd, udp_gso = true, udp_gro = true))]
    fn new(
        engine: &Engine,
        tun: &TunDevice,
        udp4_fd: Option<i32>,
        udp6_fd: Option<i32>,
        udp_gso: bool,
        udp_gro: bool,
    ) -> PyResult<Self> {
        let offloads = UdpOffloads { gso: udp_gso, gro: udp_gro };
        Ok(Self(NativeIo::new(Arc::clone(&engine.native), tun.tun()?, udp4_fd, udp6_fd, offloads)?))
    }

    fn start(&self) -> PyResult<()> {
        Ok(self.0.start()?)
    }

    #[pyo3(signature = (timeout_s = 1.0))]
    fn stop(&self, py: Python<'_>, timeout_s: f64) -> PyResult<()> {
        let timeout = Duration::try_from_secs_f64(timeout_s)
            .map_err(|error| PyValueError::new_err(format!("timeout_s: {error}")))?;
        py.detach(|| self.0.stop(timeout));
        Ok(())
    }

    fn send(&self, py: Python<'_>, datagrams: Vec<(Option<Addr>, Addr, Vec<u8>)>) -> PyResult<usize> {
        let convert = |(local, remote, payload): (Option<Addr>, Addr, Vec<u8>)| -> PyResult<_> {
            Ok((local.as_ref().map(to_native).transpose()?, to_native(&remote)?, payload))
        };
        let native: Vec<_> = datagrams.into_iter().map(convert).collect::<PyResult<_>>()?;
        Ok(py.detach(|| self.0.send(&native)))
    }

    fn write_tun(&self, py: Python<'_>, packets: Vec<Vec<u8>>) -> usize {
        py.detach(|| self.0.write_tun(&packets))
    }

    fn rebind(&self, py: Python<'_>, udp4_fd: Option<i32>, udp6_fd: Option<i32>) -> PyResult<()> {
        Ok(py.detach(|| self.0.rebind(udp4_fd, udp6_fd))?)
    }

    fn failure(&self) -> Option<String> {
        self.0.failure()
    }

    fn step_counters(&self) -> BTreeMap<&'static str, u64> {
        self.0.counters().collect()
    }
}
