//! `(host text, port)` tuples.

use std::net::{IpAddr, SocketAddr};

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

pub type Addr = (String, u16);

pub fn to_native((host, port): &Addr) -> PyResult<SocketAddr> {
    let ip: IpAddr = host.parse().map_err(|_| PyValueError::new_err(format!("not an IP address: {host:?}")))?;
    Ok(SocketAddr::new(ip, *port))
}

pub fn to_python(address: SocketAddr) -> Addr {
    (address.ip().to_string(), address.port())
}
