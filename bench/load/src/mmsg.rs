//! `sendmmsg` and `recvmmsg`: many datagrams, one system call.

use std::io;
use std::mem;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;

/// What every datagram begins with: the number of its run.
pub const HEADER: usize = 8;
/// The largest payload, one Ethernet packet's.
pub const MAX_SIZE: usize = 1472;
/// The most datagrams in one call.
pub const BATCH: usize = 64;

/// Buffers for one direction of one socket.
pub struct Batch {
    buffers: Vec<u8>,
    vectors: Vec<libc::iovec>,
    headers: Vec<libc::mmsghdr>,
}

// SAFETY: the pointers inside point into vectors that the value owns and never resizes.
unsafe impl Send for Batch {}

impl Batch {
    /// Room for [`BATCH`] datagrams of this size.
    pub fn new(size: usize) -> Self {
        let mut buffers = vec![0_u8; size * BATCH];
        let mut vectors: Vec<libc::iovec> = buffers
            .chunks_exact_mut(size)
            .map(|buffer| libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: size })
            .collect();
        let headers = vectors
            .iter_mut()
            .map(|vector| {
                // SAFETY: all zeroes are a valid header: no address, no control data, no flags.
                let mut header: libc::mmsghdr = unsafe { mem::zeroed() };
                header.msg_hdr.msg_iov = vector;
                header.msg_hdr.msg_iovlen = 1;
                header
            })
            .collect();
        Self { buffers, vectors, headers }
    }

    /// Marks every datagram with the number of its run.
    pub fn mark(&mut self, run: u64) {
        let size = self.vectors[0].iov_len;
        for buffer in self.buffers.chunks_exact_mut(size) {
            buffer[..HEADER].copy_from_slice(&run.to_be_bytes());
        }
    }

    /// Sends the first `count` datagrams over a connected socket; gives how many the kernel took.
    ///
    /// # Errors
    /// Whatever the system call says, if it took none.
    pub fn send(&mut self, socket: &UdpSocket, count: usize) -> io::Result<usize> {
        let count = count.min(BATCH) as libc::c_uint;
        // SAFETY: the headers and what they point to are alive, and there are at least `count`.
        let sent = unsafe { libc::sendmmsg(socket.as_raw_fd(), self.headers.as_mut_ptr(), count, 0) };
        usize::try_from(sent).map_err(|_| io::Error::last_os_error())
    }

    /// Waits for datagrams; gives how many came, at most [`BATCH`].
    ///
    /// # Errors
    /// Whatever the system call says.
    pub fn receive(&mut self, socket: &UdpSocket) -> io::Result<usize> {
        let flags = libc::MSG_WAITFORONE;
        let nothing = std::ptr::null_mut();
        // SAFETY: as in `send`; the kernel writes at most `iov_len` bytes into each buffer.
        let received = unsafe {
            libc::recvmmsg(socket.as_raw_fd(), self.headers.as_mut_ptr(), BATCH as libc::c_uint, flags, nothing)
        };
        usize::try_from(received).map_err(|_| io::Error::last_os_error())
    }

    /// The run that each of the first `count` received datagrams belongs to; too short ones are left out.
    pub fn runs(&self, count: usize) -> impl Iterator<Item = u64> {
        let size = self.vectors[0].iov_len;
        let whole = self.headers[..count].iter().map(|header| header.msg_len as usize >= HEADER);
        self.buffers.chunks_exact(size).zip(whole).filter(|(_, whole)| *whole).map(|(buffer, _)| {
            let mut run = [0; HEADER];
            run.copy_from_slice(&buffer[..HEADER]);
            u64::from_be_bytes(run)
        })
    }
}

/// Makes the socket's receive buffer as large as the kernel lets us.
pub fn enlarge_receive_buffer(socket: &UdpSocket, bytes: libc::c_int) {
    for option in [libc::SO_RCVBUFFORCE, libc::SO_RCVBUF] {
        let length = mem::size_of_val(&bytes) as libc::socklen_t;
        // SAFETY: the option takes an int, and `bytes` is one.
        let failed = unsafe {
            libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, option, (&raw const bytes).cast(), length)
        };
        if failed == 0 {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marked_datagrams_arrive_with_their_run() {
        let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        sender.connect(receiver.local_addr().unwrap()).unwrap();
        let mut batch = Batch::new(100);
        batch.mark(7);
        assert_eq!(batch.send(&sender, 3).unwrap(), 3);
        sender.send(b"short").unwrap();

        let mut arrived = Batch::new(MAX_SIZE);
        let mut runs = Vec::new();
        let mut count = 0;
        while count < 4 {
            let more = arrived.receive(&receiver).unwrap();
            runs.extend(arrived.runs(more));
            count += more;
        }

        assert_eq!(runs, [7, 7, 7]);
    }
}
