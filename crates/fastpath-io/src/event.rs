//! An eventfd: raised by one thread, waited for by another or by Python's loop.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;

use fastpath::upcall::Signal;

#[derive(Clone)]
pub struct Event(Arc<OwnedFd>);

impl Event {
    /// # Errors
    /// If the process is out of descriptors.
    pub fn new() -> io::Result<Self> {
        // SAFETY: takes no pointers; the descriptor is checked before it is owned.
        let fd = unsafe { libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel just gave us this descriptor and nobody else has it.
        Ok(Self(Arc::new(unsafe { OwnedFd::from_raw_fd(fd) })))
    }

    #[must_use]
    pub fn fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl Signal for Event {
    fn raise(&self) {
        let one = 1u64.to_ne_bytes();
        // SAFETY: writes 8 bytes from a local buffer. A full counter (EAGAIN) is as good as raised.
        unsafe { libc::write(self.fd(), one.as_ptr().cast(), one.len()) };
    }

    fn clear(&self) {
        let mut count = [0u8; 8];
        // SAFETY: reads at most 8 bytes into a local buffer. Nothing to read (EAGAIN) is as good as cleared.
        unsafe { libc::read(self.fd(), count.as_mut_ptr().cast(), count.len()) };
    }
}
