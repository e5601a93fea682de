//! The packet path's Python face: converts, releases the GIL, maps errors; decides nothing.

mod noise;

use pyo3::prelude::*;

#[pymodule]
fn _fastpath(module: &Bound<'_, PyModule>) -> PyResult<()> {
    noise::register(module)
}
