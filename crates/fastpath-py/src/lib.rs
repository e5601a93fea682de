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
use pyo3::types::PyType;

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
    module.add_class::<upcall::SessionUpcall>()?;
    add_aliases(module)
}

/// The names of types that the stub declares, so that they can be imported at run time too.
fn add_aliases(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    let upcalls: [Bound<'_, PyType>; 2] =
        [py.get_type::<upcall::DatagramUpcall>(), py.get_type::<upcall::SessionUpcall>()];
    let packet = py.get_type::<upcall::PacketUpcall>().into_any();
    let upcall = upcalls.iter().try_fold(packet, |union, one| union.bitor(one))?;
    module.add("Upcall", upcall)?;
    let decided = c"tuple[object, int, int, bytes]";
    module.add("Decided", py.eval(decided, None, None)?)?;
    module.add("Addr", py.eval(c"tuple[str, int]", None, None)?)?;
    module.add("Datagram", py.eval(c"tuple[tuple[str, int] | None, tuple[str, int], bytes]", None, None)?)
}
