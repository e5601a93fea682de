//! The handshake objects.

use std::sync::Mutex;

use fastpath::noise::{self, HandshakeError as NativeError};
use pyo3::create_exception;
use pyo3::exceptions::{PyException, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

create_exception!(
    _fastpath,
    HandshakeError,
    PyException,
    "The Noise message is malformed, not for us, or fails authentication."
);

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("HandshakeError", module.py().get_type::<HandshakeError>())?;
    module.add_class::<StaticKey>()?;
    module.add_class::<Keypair>()?;
    module.add_class::<Initiation>()?;
    module.add_class::<OpenedInitiation>()?;
    module.add_function(wrap_pyfunction!(xchacha20poly1305_seal, module)?)?;
    module.add_function(wrap_pyfunction!(xchacha20poly1305_open, module)?)
}

fn refused(error: NativeError) -> PyErr {
    HandshakeError::new_err(error.0)
}

/// Exactly `N` bytes, or a `ValueError` that names them.
fn exactly<const N: usize>(bytes: &[u8], name: &str) -> PyResult<[u8; N]> {
    bytes.try_into().map_err(|_| PyValueError::new_err(format!("{name} must be {N} bytes, not {}", bytes.len())))
}

#[pyclass(frozen, module = "wardgate._fastpath")]
pub struct StaticKey(noise::StaticKey);

#[pymethods]
impl StaticKey {
    #[staticmethod]
    fn from_bytes(private: &[u8]) -> PyResult<Self> {
        Ok(Self(noise::StaticKey::new(exactly(private, "private")?)))
    }

    #[getter]
    fn public_key<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.0.public_key())
    }
}

/// The keys leave once, into `Engine.add_session`; the rest stays readable.
#[pyclass(frozen, module = "wardgate._fastpath")]
pub struct Keypair {
    #[pyo3(get)]
    local_index: u32,
    #[pyo3(get)]
    remote_index: u32,
    #[pyo3(get)]
    is_initiator: bool,
    keys: Mutex<Option<noise::Keypair>>,
}

impl Keypair {
    pub fn take(&self) -> Option<noise::Keypair> {
        self.keys.lock().ok()?.take()
    }

    pub fn put_back(&self, keys: noise::Keypair) {
        if let Ok(mut slot) = self.keys.lock() {
            *slot = Some(keys);
        }
    }
}

impl From<noise::Keypair> for Keypair {
    fn from(keys: noise::Keypair) -> Self {
        Self {
            local_index: keys.local_index,
            remote_index: keys.remote_index,
            is_initiator: keys.is_initiator,
            keys: Mutex::new(Some(keys)),
        }
    }
}

#[pyclass(frozen, module = "wardgate._fastpath")]
pub struct Initiation(Mutex<noise::Initiation>);

#[pymethods]
impl Initiation {
    #[staticmethod]
    fn start<'py>(
        py: Python<'py>,
        r#static: &StaticKey,
        remote_public: &[u8],
        psk: &[u8],
        sender_index: u32,
        timestamp: &[u8],
        ephemeral: &[u8],
    ) -> PyResult<(Self, Bound<'py, PyBytes>)> {
        let (initiation, message) = noise::Initiation::start(
            &r#static.0,
            &exactly(remote_public, "remote_public")?,
            &exactly(psk, "psk")?,
            sender_index,
            &exactly(timestamp, "timestamp")?,
            exactly(ephemeral, "ephemeral")?,
        )
        .map_err(refused)?;
        Ok((Self(Mutex::new(initiation)), PyBytes::new(py, &message)))
    }

    fn finish(&self, response: &[u8]) -> PyResult<Keypair> {
        let mut initiation = self.0.lock().map_err(|_| HandshakeError::new_err("the handshake is broken"))?;
        initiation.finish(response).map(Keypair::from).map_err(refused)
    }
}

#[pyclass(frozen, module = "wardgate._fastpath")]
pub struct OpenedInitiation(Mutex<noise::OpenedInitiation>);

impl OpenedInitiation {
    fn with<T>(&self, read: impl FnOnce(&mut noise::OpenedInitiation) -> T) -> PyResult<T> {
        let mut opened = self.0.lock().map_err(|_| HandshakeError::new_err("the handshake is broken"))?;
        Ok(read(&mut opened))
    }
}

#[pymethods]
impl OpenedInitiation {
    #[staticmethod]
    fn open(r#static: &StaticKey, message: &[u8]) -> PyResult<Self> {
        noise::OpenedInitiation::open(&r#static.0, message).map(|opened| Self(Mutex::new(opened))).map_err(refused)
    }

    #[getter]
    fn remote_public<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        self.with(|opened| PyBytes::new(py, &opened.remote_public()))
    }

    #[getter]
    fn timestamp<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        self.with(|opened| PyBytes::new(py, &opened.timestamp()))
    }

    #[getter]
    fn sender_index(&self) -> PyResult<u32> {
        self.with(|opened| opened.sender_index())
    }

    fn respond<'py>(
        &self,
        py: Python<'py>,
        psk: &[u8],
        sender_index: u32,
        ephemeral: &[u8],
    ) -> PyResult<(Bound<'py, PyBytes>, Keypair)> {
        let (psk, ephemeral) = (exactly(psk, "psk")?, exactly(ephemeral, "ephemeral")?);
        let (message, keys) = self.with(|opened| opened.respond(&psk, sender_index, ephemeral))?.map_err(refused)?;
        Ok((PyBytes::new(py, &message), keys.into()))
    }
}

#[pyfunction]
fn xchacha20poly1305_seal<'py>(
    py: Python<'py>,
    key: &[u8],
    nonce: &[u8],
    aad: &[u8],
    plaintext: &[u8],
) -> PyResult<Bound<'py, PyBytes>> {
    let sealed = noise::xchacha20poly1305_seal(&exactly(key, "key")?, &exactly(nonce, "nonce")?, aad, plaintext)
        .map_err(refused)?;
    Ok(PyBytes::new(py, &sealed))
}

#[pyfunction]
fn xchacha20poly1305_open<'py>(
    py: Python<'py>,
    key: &[u8],
    nonce: &[u8],
    aad: &[u8],
    ciphertext: &[u8],
) -> PyResult<Bound<'py, PyBytes>> {
    let opened = noise::xchacha20poly1305_open(&exactly(key, "key")?, &exactly(nonce, "nonce")?, aad, ciphertext)
        .map_err(refused)?;
    Ok(PyBytes::new(py, &opened))
}
