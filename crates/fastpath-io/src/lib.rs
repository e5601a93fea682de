//! TUN devices, UDP sockets and the threads around the packet path. The one crate with `unsafe`, which it needs for
//! system calls alone.

pub mod delay_line;
pub mod event;
pub mod relay;
