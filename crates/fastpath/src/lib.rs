//! The packet path without I/O: sessions, paths and flows; seal and open; split and coalesce.
//!
//! Nothing here reads a clock, opens a socket or knows of Python; time and bytes are arguments.

#![forbid(unsafe_code)]

mod checksum;
mod clock;
pub mod coalesce;
pub mod counters;
pub mod engine;
pub mod flow;
mod indications;
pub mod install;
pub mod net_path;
pub mod noise;
pub mod packet;
pub mod peer;
pub mod relay;
mod replay;
pub mod send_queue;
mod session;
pub mod split;
pub mod strangers;
pub mod tables;
pub mod tun_path;
pub mod upcall;
pub mod virtio;
