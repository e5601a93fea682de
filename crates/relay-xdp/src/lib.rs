//! Forwards known channels of a relay in the kernel, before its network stack: the XDP program of `bpf/relay.bpf.c`,
//! loaded, attached and told of the channels. Whatever the program does not know it leaves to user space, so everything
//! here may fail and a relay goes on.

mod layout;

use std::error::Error;
use std::fmt::Write as _;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use aya::maps::{HashMap, MapData, MapError, PerCpuArray};
use aya::programs::{ProgramError, Xdp, XdpMode};
use aya::util::KernelVersion;
use aya::{Ebpf, EbpfLoader};

use layout::{COUNTERS, Sender, Target};

#[cfg(has_program)]
static PROGRAM: Result<&[u8], &str> = Ok(aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/relay.bpf.o")));
#[cfg(not(has_program))]
static PROGRAM: Result<&[u8], &str> = Err(concat!("built without XDP: ", env!("RELAY_XDP_ABSENT")));

/// BPF_NOEXIST: what is there already keeps its counters.
const NEW_ONLY: u64 = 1;

/// Where the kernel runs the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// In the interface's driver.
    Driver,
    /// Where every packet of the interface enters the network stack.
    Generic,
}

/// What the program has to know.
pub struct Settings<'a> {
    pub interface: &'a str,
    pub mode: Mode,
    pub listen_port: u16,
    /// The one address of each family that frames to us have, and frames from us.
    pub own4: Option<Ipv4Addr>,
    pub own6: Option<Ipv6Addr>,
}

/// A channel between a client and a peer of the allocation at `port`.
#[derive(Debug, Clone, Copy)]
pub struct Route {
    pub client: SocketAddr,
    pub number: u16,
    pub port: u16,
    pub peer: SocketAddr,
    /// Whether the peer's address is this relay's own.
    pub is_here: bool,
}

/// The program at its interface; dropping it detaches it, and so does the end of the process, however it ends.
pub struct Offload {
    by_client: HashMap<MapData, Sender, Target>,
    by_peer: HashMap<MapData, Sender, Target>,
    counters: PerCpuArray<MapData, u64>,
    map_errors: u64,
    _attached: Ebpf,
}

impl Offload {
    /// Loads the program and attaches it.
    ///
    /// # Errors
    /// Says why not, for people: not built in, not permitted, not supported, no such interface.
    pub fn attach(settings: &Settings<'_>) -> Result<Self, String> {
        let object = PROGRAM?;
        if KernelVersion::current().is_ok_and(|version| version < KernelVersion::new(5, 9, 0)) {
            // Without a link, which came with that version, the program would stay when this process is killed.
            return Err("Linux 5.9 or newer is needed".into());
        }
        let config = layout::config(
            settings.own4,
            settings.own6,
            settings.listen_port,
            // A driver drops silently what it is to send for another interface and cannot.
            settings.mode == Mode::Generic,
        );
        let mut loaded = EbpfLoader::new()
            .btf(None)
            .override_global("config", &config, true)
            .load(object)
            .map_err(|error| explained("cannot load the program", &error))?;
        attach_program(&mut loaded, settings)?;
        let mut take = |name: &str| loaded.take_map(name).ok_or_else(|| format!("the program has no map {name}"));
        let (by_client, by_peer, counters) = (take("by_client")?, take("by_peer")?, take("counters")?);
        let wrong = |error: MapError| explained("a map of the program is not as expected", &error);
        Ok(Self {
            by_client: by_client.try_into().map_err(wrong)?,
            by_peer: by_peer.try_into().map_err(wrong)?,
            counters: counters.try_into().map_err(wrong)?,
            map_errors: 0,
            _attached: loaded,
        })
    }

    /// Makes the kernel forward a channel both ways; one that is there already keeps its counters.
    ///
    /// What the kernel refuses is counted, and user space goes on doing it.
    pub fn add(&mut self, route: &Route) {
        let Route { client, number, port, peer, is_here } = *route;
        let to_peer = layout::target(peer, port, is_here);
        let to_client = layout::target(client, number, false);
        let outbound = self.by_client.insert(layout::sender(client, number), to_peer, NEW_ONLY);
        let inbound = self.by_peer.insert(layout::sender(peer, port), to_client, NEW_ONLY);
        for error in [outbound, inbound].into_iter().filter_map(Result::err) {
            self.map_errors += u64::from(!is(&error, libc::EEXIST));
        }
    }

    /// Makes the kernel forget a channel; one that it does not know is no error.
    pub fn remove(&mut self, route: &Route) {
        let outbound = self.by_client.remove(&layout::sender(route.client, route.number));
        let inbound = self.by_peer.remove(&layout::sender(route.peer, route.port));
        for error in [outbound, inbound].into_iter().filter_map(Result::err) {
            self.map_errors += u64::from(!is(&error, libc::ENOENT));
        }
    }

    /// Packets and bytes of a channel that the kernel forwarded, to the peer and to the client.
    #[must_use]
    pub fn traffic(&self, route: &Route) -> [(u64, u64); 2] {
        let to_peer = self.by_client.get(&layout::sender(route.client, route.number), 0);
        let to_client = self.by_peer.get(&layout::sender(route.peer, route.port), 0);
        [to_peer, to_client].map(|target| target.map_or((0, 0), |target| layout::traffic(&target)))
    }

    /// Names and values, summed over all processors.
    #[must_use]
    pub fn counters(&self) -> Vec<(&'static str, u64)> {
        let sum = |index| self.counters.get(&index, 0).map_or(0, |values| values.iter().sum());
        let mut all: Vec<_> = COUNTERS.into_iter().zip((0..).map(sum)).collect();
        all.push(("xdp_map_errors", self.map_errors));
        all
    }
}

fn attach_program(loaded: &mut Ebpf, settings: &Settings<'_>) -> Result<(), String> {
    let program = loaded.program_mut("relay").ok_or("the program has no function")?;
    let program: &mut Xdp = program.try_into().map_err(|error| explained("no XDP program", &error))?;
    program.load().map_err(|error| refused(&error))?;
    let (mode, hint) = match settings.mode {
        Mode::Driver => (XdpMode::Driver, "; generic mode works with every driver"),
        Mode::Generic => (XdpMode::Skb, ""),
    };
    let attached = program.attach(settings.interface, mode);
    let _link_of_the_program = attached.map_err(|error| {
        let mut text = explained(&format!("cannot attach to {}", settings.interface), &error);
        text.push_str(hint);
        text
    })?;
    Ok(())
}

/// Why the kernel did not take the program. Of the verifier's account what it says last, before its statistics.
fn refused(error: &ProgramError) -> String {
    const WHAT: &str = "the kernel refuses the program";
    let ProgramError::LoadError { io_error, verifier_log } = error else {
        return explained(WHAT, error);
    };
    let account = verifier_log.to_string();
    let statistics = ["verification time", "stack depth", "processed"];
    let is_reason = |line: &&str| !line.is_empty() && !statistics.iter().any(|word| line.starts_with(word));
    match account.lines().rev().find(is_reason) {
        Some(reason) => explained(&format!("{WHAT} ({reason})"), io_error),
        None => explained(WHAT, io_error),
    }
}

fn is(error: &MapError, code: i32) -> bool {
    match error {
        MapError::KeyNotFound => code == libc::ENOENT,
        MapError::SyscallError(error) => error.io_error.raw_os_error() == Some(code),
        _ => false,
    }
}

/// An error with all its causes in one line, and what to do about the commonest of them.
fn explained(what: &str, error: &(dyn Error + 'static)) -> String {
    let mut text = what.to_owned();
    let mut next = Some(error);
    while let Some(cause) = next {
        let said = cause.to_string();
        let line = said.lines().next().unwrap_or_default().trim();
        if !text.contains(line) {
            let _infallible = write!(text, ": {line}");
        }
        if let Some(io) = cause.downcast_ref::<io::Error>()
            && io.kind() == io::ErrorKind::PermissionDenied
        {
            text.push_str("; CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN are needed");
        }
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_in_the_way_is_said() {
        let own4 = Some(Ipv4Addr::LOCALHOST);
        let settings = Settings { interface: "nowhere", mode: Mode::Generic, listen_port: 3478, own4, own6: None };

        let reason = Offload::attach(&settings).err().expect("there is no such interface");

        let expected = if cfg!(has_program) { ["nowhere", "CAP_BPF"] } else { ["built without XDP: clang", "clang"] };
        assert!(expected.iter().any(|text| reason.contains(text)), "{reason}");
    }
}
