//! Load for the tunnel benchmark, and the server that counts it.
//!
//! ```text
//! load serve <address:port>                                  counts datagrams, accepts connections, until it is ended
//! load udp <address:port> <size> <packets/s> <seconds>       sends datagrams, asks the server how many came
//! load connect <address:port> <connections/s> <seconds>      opens connections at a fixed pace
//!
//! load blast <single|batched> <channel|plain> <size> <packets/s or 0> <seconds> <descriptor>...   for relays: sends
//! load sink <size> <bytes before> <times|counts> <descriptor>...       answers each line with what came since the last
//! load spoof <descriptor> <our MAC> <their MAC> <address:port> <count> <packets/s or 0> <kinds> <seed>      floods
//! ```
//! Results are one JSON object on standard output. Datagrams are what an ordinary program sends: one packet each, no
//! segmentation offload. Only the system calls are batched, so that the load is not the bottleneck.

mod blast;
mod connect;
mod mmsg;
mod pace;
mod serve;
mod sink;
mod spoof;
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
        ["blast", mode, frame, size, rate, seconds, descriptors @ ..] => {
            blast_of(mode, frame, size, rate, seconds, descriptors)
        }
        ["sink", size, before, times, descriptors @ ..] => sink_of(size, before, times, descriptors),
        ["spoof", rest @ ..] => spoof_of(rest),
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

fn blast_of(
    mode: &str,
    frame: &str,
    size: &str,
    rate: &str,
    seconds: &str,
    descriptors: &[&str],
) -> Result<(), String> {
    let blast = blast::Blast {
        size: parse::<usize>(size, "size")?.max(mmsg::HEADER),
        is_channel: frame == "channel",
        is_batched: mode == "batched",
        rate: rate_of(rate)?,
        lasts: duration(seconds)?,
    };
    let counted = blast::run(&blast, &descriptors_of(descriptors)?)?;
    println!(
        "{{\"sent\": {}, \"refused\": {}, \"seconds\": {:.6}}}",
        counted.sent,
        counted.refused,
        counted.lasted.as_secs_f64()
    );
    Ok(())
}

fn sink_of(size: &str, before: &str, times: &str, descriptors: &[&str]) -> Result<(), String> {
    sink::run(parse(size, "size")?, parse(before, "size")?, times == "times", descriptors_of(descriptors)?)
}

fn spoof_of(words: &[&str]) -> Result<(), String> {
    let [fd, ours, theirs, target, count, rate, kinds, seed] = words else {
        return Err("spoof takes eight arguments".into());
    };
    let sent = spoof::run(&spoof::Flood {
        fd: parse(fd, "descriptor")?,
        ours: mac(ours)?,
        theirs: mac(theirs)?,
        target: parse(target, "address")?,
        count: parse(count, "count")?,
        rate: rate_of(rate)?,
        kinds: kinds.bytes().collect(),
        seed: parse(seed, "seed")?,
    })?;
    let seconds = sent.lasted.as_secs_f64();
    println!("{{\"sent\": {}, \"payload\": {}, \"seconds\": {seconds:.6}}}", sent.datagrams, sent.payload);
    Ok(())
}

fn descriptors_of(words: &[&str]) -> Result<Vec<std::os::fd::RawFd>, String> {
    words.iter().map(|word| parse(word, "descriptor")).collect()
}

fn rate_of(text: &str) -> Result<Option<f64>, String> {
    if text == "0" { Ok(None) } else { positive(text, "rate").map(Some) }
}

fn mac(text: &str) -> Result<[u8; 6], String> {
    let bytes: Option<Vec<u8>> = text.split(':').map(|part| u8::from_str_radix(part, 16).ok()).collect();
    bytes.and_then(|bytes| bytes.try_into().ok()).ok_or_else(|| format!("{text:?} is no MAC address"))
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
