//! The packet path's Python face: converts, releases the GIL, maps errors; decides nothing.

mod address;
mod delay_line;
mod engine;
mod flow;
mod io;
mod noise;
mod relay;
mod upcall;

use pyo3::prelude::*;

#[pymodule]
fn _fastpath(module: &Bound<'_, PyModule>) -> PyResult<()> {
    noise::register(module)?;
    delay_line::register(module)?;
    module.add_class::<engine::Engine>()?;
    relay::register(module)?;
    module.add_class::<engine::PeerActivity>()?;
    module.add_class::<flow::Flow>()?;
    module.add_class::<flow::FlowReport>()?;
    module.add_class::<io::TunDevice>()?;
    module.add_class::<io::TunnelIo>()?;
    module.add_class::<upcall::PacketUpcall>()?;
    module.add_class::<upcall::DatagramUpcall>()?;
    module.add_class::<upcall::SessionUpcall>()
}
