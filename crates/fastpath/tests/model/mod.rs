//! What the packet path must do, told slowly and plainly, and the checks that compare it with what it does.
//!
//! Each `check` takes any bytes, reads a case from them and panics if the packet path does not do as the model says. The
//! property tests feed them random bytes, the fuzzer its own; both replay the kept corpus.

#![allow(dead_code)] // whoever includes this uses a part of it

pub mod choices;
pub mod coalesce;
pub mod congestion;
pub mod headers;
pub mod kernel;
pub mod pipeline;
pub mod queue;
pub mod raw;
pub mod relay;
pub mod split;
pub mod streams;
pub mod wire;
pub mod world;
