//! The packet path without I/O: sessions, paths and flows; seal and open; split and coalesce.
//!
//! Nothing here reads a clock, opens a socket or knows of Python; time and bytes are arguments.

#![forbid(unsafe_code)]

pub mod noise;
