//! Load for the tunnel benchmark, and the server that counts it.
//!
//! ```text
//! load serve <address:port>                                  counts datagrams, accepts connections, until it is ended
//! load udp <address:port> <size> <packets/s> <seconds>       sends datagrams, asks the server how many came
//! load connect <address:port> <connections/s> <seconds>      opens connections at a fixed pace
//! ```
//! Results are one JSON object on standard output. Datagrams are what an ordinary program sends: one packet each, no
//! segmentation offload. Only the system calls are batched, so that the load is not the bottleneck.

mod connect;
mod mmsg;
mod pace;
mod serve;
mod udp;

use std::net::{SocketAddr, SocketAddrV4};
use std::process::ExitCode;
use std::time::Duration;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match words.as_slice() {
        ["serve", listen] => parse(listen, "address").and_then(serve::serve),
        ["udp", target, size, rate, seconds] => udp_of(target, size, rate, seconds),
        ["connect", target, rate, seconds] => connect_of(target, rate, seconds),
        _ => Err("usage: load serve ADDRESS | udp ADDRESS SIZE RATE SECONDS | connect ADDRESS RATE SECONDS".into()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(text) => {
            eprintln!("load: {text}");
            ExitCode::FAILURE
        }
    }
}

fn udp_of(target: &str, size: &str, rate: &str, seconds: &str) -> Result<(), String> {
    let target: SocketAddrV4 = parse(target, "address")?;
    let size: usize = parse(size, "size")?;
    if !(mmsg::HEADER..=mmsg::MAX_SIZE).contains(&size) {
        return Err(format!("a size of {size} is outside {} to {}", mmsg::HEADER, mmsg::MAX_SIZE));
    }
    let counted = udp::run(target, size, positive(rate, "rate")?, duration(seconds)?)?;
    println!(
        "{{\"sent\": {}, \"refused\": {}, \"received\": {}, \"seconds\": {:.6}}}",
        counted.sent,
        counted.refused,
        counted.received,
        counted.lasted.as_secs_f64()
    );
    Ok(())
}

fn connect_of(target: &str, rate: &str, seconds: &str) -> Result<(), String> {
    let target: SocketAddr = parse(target, "address")?;
    let opened = connect::run(target, positive(rate, "rate")?, duration(seconds)?)?;
    let latencies: Vec<String> =
        opened.latencies.iter().map(|latency| format!("{:.6}", latency.as_secs_f64())).collect();
    println!("{{\"tried\": {}, \"latencies_s\": [{}]}}", opened.tried, latencies.join(", "));
    Ok(())
}

fn positive(text: &str, what: &str) -> Result<f64, String> {
    let value: f64 = parse(text, what)?;
    if value > 0.0 && value.is_finite() { Ok(value) } else { Err(format!("a {what} of {text} is not above zero")) }
}

fn duration(text: &str) -> Result<Duration, String> {
    Ok(Duration::from_secs_f64(positive(text, "time")?.min(3600.0)))
}

fn parse<T: std::str::FromStr>(text: &str, what: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("{text:?} is no {what}"))
}
