//! New TCP connections at a fixed pace, whatever becomes of the earlier ones.

use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crate::pace::Pace;

/// A connection that takes longer has failed.
const TIMEOUT: Duration = Duration::from_secs(3);

/// What became of the connections.
pub struct Opened {
    /// How many were started.
    pub tried: usize,
    /// How long each took that was established.
    pub latencies: Vec<Duration>,
}

/// Opens so many connections a second for so long; each is closed as soon as it is there.
///
/// # Errors
/// No thread could be made.
pub fn run(target: SocketAddr, rate: f64, lasts: Duration) -> Result<Opened, String> {
    let (report, reports) = mpsc::channel();
    let mut pace = Pace::new(rate, lasts);
    let mut tried = 0;
    while let Some(due) = pace.wait(1) {
        for _ in 0..due {
            let report = report.clone();
            tried += 1;
            let open = move || {
                let began = Instant::now();
                if TcpStream::connect_timeout(&target, TIMEOUT).is_ok() {
                    // The receiver outlives every thread, so this cannot fail before the result is complete.
                    let _ = report.send(began.elapsed());
                }
            };
            thread::Builder::new().stack_size(64 << 10).spawn(open).map_err(|error| format!("thread: {error}"))?;
        }
    }
    drop(report);
    Ok(Opened { tried, latencies: reports.iter().collect() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn every_connection_is_tried_and_timed() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();

        let opened = run(listener.local_addr().unwrap(), 200.0, Duration::from_millis(100)).unwrap();

        assert!((10..=21).contains(&opened.tried), "{} connections", opened.tried);
        assert_eq!(opened.latencies.len(), opened.tried);
    }
}
