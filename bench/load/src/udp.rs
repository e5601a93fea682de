//! The near end of the packet rate: sends datagrams at a fixed rate and asks the far end how many came.

use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::net::{SocketAddr, SocketAddrV4, TcpStream, UdpSocket};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::mmsg::{BATCH, Batch};
use crate::pace::Pace;

/// Sent at the same rate before anything counts: paths are warm, processors awake.
const LEAD_IN: Duration = Duration::from_millis(100);
/// How long the last datagrams may be under way.
const DRAIN: Duration = Duration::from_millis(150);
const ASK_TIMEOUT: Duration = Duration::from_secs(10);

/// What became of a run.
pub struct Counted {
    /// Datagrams the kernel took.
    pub sent: u64,
    /// Datagrams it did not take, which count as lost on the way.
    pub refused: u64,
    /// Datagrams that came.
    pub received: u64,
    /// How long they were sent.
    pub lasted: Duration,
}

/// Sends for so long, at so many datagrams a second.
///
/// # Errors
/// The far end does not answer.
pub fn run(target: SocketAddrV4, size: usize, rate: f64, lasts: Duration) -> Result<Counted, String> {
    let mut questions = TcpStream::connect_timeout(&SocketAddr::V4(target), ASK_TIMEOUT).map_err(text_of("connect"))?;
    questions.set_read_timeout(Some(ASK_TIMEOUT)).map_err(text_of("timeout"))?;
    let socket = UdpSocket::bind("0.0.0.0:0").map_err(text_of("bind"))?;
    socket.connect(target).map_err(text_of("connect"))?;
    let started = SystemTime::now().duration_since(UNIX_EPOCH).map_err(text_of("clock"))?;
    let run = started.as_nanos() as u64;

    let mut batch = Batch::new(size);
    batch.mark(run - 1);
    send(&socket, &mut batch, rate, LEAD_IN.min(lasts));
    batch.mark(run);
    let mut counted = send(&socket, &mut batch, rate, lasts);
    thread::sleep(DRAIN);
    counted.received = ask(&mut questions, run)?;
    Ok(counted)
}

fn send(socket: &UdpSocket, batch: &mut Batch, rate: f64, lasts: Duration) -> Counted {
    let mut counted = Counted { sent: 0, refused: 0, received: 0, lasted: Duration::ZERO };
    let mut pace = Pace::new(rate, lasts);
    while let Some(due) = pace.wait(BATCH) {
        let mut left = due;
        while left > 0 {
            match batch.send(socket, left) {
                Ok(sent) => {
                    counted.sent += sent as u64;
                    left -= sent.min(left);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => {
                    counted.refused += left as u64;
                    left = 0;
                }
            }
        }
    }
    counted.lasted = pace.elapsed();
    counted
}

fn ask(questions: &mut TcpStream, run: u64) -> Result<u64, String> {
    writeln!(questions, "{run}").map_err(text_of("ask"))?;
    let mut line = String::new();
    BufReader::new(questions).read_line(&mut line).map_err(text_of("answer"))?;
    line.trim().parse().map_err(|_| "the far end ended the connection".to_owned())
}

fn text_of<E: std::fmt::Display>(what: &'static str) -> impl Fn(E) -> String {
    move |error| format!("{what}: {error}")
}
