//! The far end: counts datagrams by run, accepts connections, and answers how many datagrams of a run came.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use crate::mmsg::{Batch, MAX_SIZE, enlarge_receive_buffer};

const RECEIVE_BUFFER: libc::c_int = 16 << 20;
/// How many runs are remembered; the oldest are forgotten first.
const MAX_RUNS: usize = 256;
const QUESTION_TIMEOUT: Duration = Duration::from_secs(20);

/// Datagrams by run. Numbers of runs grow, so the smallest is the oldest.
#[derive(Default)]
struct Counts(HashMap<u64, u64>);

impl Counts {
    fn add(&mut self, run: u64, count: u64) {
        *self.0.entry(run).or_default() += count;
        if self.0.len() > MAX_RUNS
            && let Some(oldest) = self.0.keys().min().copied()
        {
            self.0.remove(&oldest);
        }
    }
}

/// Serves until the process is ended.
///
/// # Errors
/// The address cannot be listened on.
pub fn serve(listen: SocketAddr) -> Result<(), String> {
    let datagrams = UdpSocket::bind(listen).map_err(|error| format!("UDP {listen}: {error}"))?;
    let connections = TcpListener::bind(listen).map_err(|error| format!("TCP {listen}: {error}"))?;
    enlarge_receive_buffer(&datagrams, RECEIVE_BUFFER);
    let counts = Arc::new(Mutex::new(Counts::default()));
    let counted = Arc::clone(&counts);
    thread::spawn(move || count(&datagrams, &counted));
    println!("listening on {listen}");
    for connection in connections.incoming().flatten() {
        let counts = Arc::clone(&counts);
        thread::spawn(move || answer(connection, &counts));
    }
    Ok(())
}

fn count(datagrams: &UdpSocket, counts: &Mutex<Counts>) {
    let mut batch = Batch::new(MAX_SIZE);
    loop {
        let Ok(received) = batch.receive(datagrams) else { continue };
        let mut counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
        let mut same: Option<(u64, u64)> = None;
        for run in batch.runs(received) {
            same = match same {
                Some((of, so_far)) if of == run => Some((of, so_far + 1)),
                Some((of, so_far)) => {
                    counts.add(of, so_far);
                    Some((run, 1))
                }
                None => Some((run, 1)),
            };
        }
        if let Some((run, rest)) = same {
            counts.add(run, rest);
        }
    }
}

/// Answers questions of a connection, each a run's number on a line; one that asks nothing just ends.
fn answer(connection: TcpStream, counts: &Mutex<Counts>) {
    let _ = connection.set_read_timeout(Some(QUESTION_TIMEOUT));
    let Ok(mut writer) = connection.try_clone() else { return };
    for line in BufReader::new(connection).lines() {
        let Some(run) = line.ok().and_then(|text| text.trim().parse::<u64>().ok()) else { return };
        let found = counts.lock().unwrap_or_else(PoisonError::into_inner).0.get(&run).copied().unwrap_or(0);
        if writeln!(writer, "{found}").is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_run_is_forgotten_first() {
        let mut counts = Counts::default();
        for run in 0..=MAX_RUNS as u64 {
            counts.add(run, 2);
        }

        assert_eq!(counts.0.get(&0), None);
        assert_eq!(counts.0.get(&1), Some(&2));
        assert_eq!(counts.0.len(), MAX_RUNS);
    }
}
