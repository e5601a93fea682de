//! The lab's delay line.

use std::os::fd::RawFd;
use std::sync::Mutex;
use std::time::Duration;

use fastpath_io::delay_line;
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<DelayLine>()
}

fn duration(delay_s: f64) -> PyResult<Duration> {
    Duration::try_from_secs_f64(delay_s).map_err(|_| PyValueError::new_err(format!("{delay_s} s is not a delay")))
}

type Counters = (u64, u64, u64, u64, f64);

#[pyclass(frozen, module = "wardgate._fastpath")]
pub struct DelayLine(Mutex<delay_line::DelayLine>);

impl DelayLine {
    fn with<T>(&self, act: impl FnOnce(&mut delay_line::DelayLine) -> T) -> PyResult<T> {
        let mut line = self.0.lock().map_err(|_| PyRuntimeError::new_err("the delay line is broken"))?;
        Ok(act(&mut line))
    }
}

#[pymethods]
impl DelayLine {
    #[new]
    fn new(first_fd: RawFd, second_fd: RawFd, delay_s: f64, limit_bytes: usize) -> PyResult<Self> {
        let (first, second) = (delay_line::duplicate(first_fd)?, delay_line::duplicate(second_fd)?);
        let line = delay_line::DelayLine::start(first, second, duration(delay_s)?, limit_bytes)?;
        Ok(Self(Mutex::new(line)))
    }

    fn set_delay(&self, delay_s: f64) -> PyResult<()> {
        let delay = duration(delay_s)?;
        self.with(|line| line.set_delay(delay))
    }

    fn counters(&self) -> PyResult<(Counters, Counters)> {
        let [there, back] = self.with(|line| line.counters())?;
        let values = |of: delay_line::DirectionCounters| {
            (of.frames, of.bytes, of.overflowed, of.refused, of.max_late_ns as f64 / 1e9)
        };
        Ok((values(there), values(back)))
    }

    fn stop(&self, py: Python<'_>) -> PyResult<()> {
        py.detach(|| self.with(delay_line::DelayLine::stop))
    }
}
