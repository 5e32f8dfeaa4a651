//! `read 127.0.0.1:PORT CLIENTS MODE`: CLIENTS clients of one server, in one thread, with minimal
//! work: poll, recv of 256 KiB, and a walk along the lengths of frames.
//!
//! The mode `count` reads only the length and the first byte of a frame, and counts every metric and
//! every total of a histogram as an event. The other modes decode the value of an increment, from
//! the end of its frame, and count only increments, not totals. In the mode `timed`, the value is
//! the time of recording.
//!
//! - `wait total= quiet=`: report when all clients together have `total` events, or when none has
//!   received data for `quiet` seconds.
//! - `latency`: report the distribution of latencies since the last such command.
//! - `reset`: restart the event counts at 0.

use std::env::args;
use std::io::{self, ErrorKind, Read};
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use benchmark_peers::{fail, now_ns, say, Command};

const PIECE: usize = 256 * 1024;
const LARGEST_FRAME: usize = 64 * 1024;

#[derive(Clone, Copy, PartialEq)]
enum Mode {
    Count,
    Increments,
    Timed,
}

struct Client {
    socket: TcpStream,
    /// The received part of an incomplete frame.
    rest: Vec<u8>,
    events: u64,
    /// The error that ended reading, if any.
    wrong: Option<&'static str>,
}

/// Returns the value of a counter's increment, or None for another metric. The value is the last
/// field of the frame. From the end: a byte below 0x80, any bytes of 0x80 and above, and the tag.
fn increment(frame: &[u8]) -> Option<u64> {
    let mut at = frame.len() - 1;
    let mut value = u64::from(frame[at]);
    if value >= 0x80 {
        return None;
    }
    while at > 0 && frame[at - 1] >= 0x80 {
        at -= 1;
        value = value << 7 | u64::from(frame[at] & 0x7f);
    }
    (at > 0 && frame[at - 1] == 0x20).then_some(value)
}

impl Client {
    /// Counts all complete frames, and returns their size in bytes.
    fn walk(
        &mut self,
        data: &[u8],
        mode: Mode,
        latencies: &mut Vec<u64>,
    ) -> Result<usize, &'static str> {
        let now = if mode == Mode::Timed { now_ns() } else { 0 };
        let mut start = 0;
        while start < data.len() {
            let (mut length, mut at, mut shift) = (0, start, 0);
            while let Some(&byte) = data.get(at) {
                at += 1;
                length |= usize::from(byte & 0x7f) << shift;
                shift += 7;
                if byte < 0x80 {
                    shift = 0;
                    break;
                }
                if shift > 14 {
                    return Err("the length of a frame has more than three bytes");
                }
            }
            if length > LARGEST_FRAME {
                return Err("a frame of more than 64 KiB");
            }
            if shift != 0 || data.len() - at < length {
                break;
            }
            start = at + length;
            match data[at..start].first() {
                // A metric, or the total of a histogram.
                Some(0x12 | 0xda) if mode == Mode::Count => self.events += 1,
                Some(0x12) => {
                    if let Some(value) = increment(&data[at..start]) {
                        self.events += 1;
                        if mode == Mode::Timed {
                            latencies.push(now.saturating_sub(value));
                        }
                    }
                }
                // Every event is empty or has one length-delimited field.
                Some(tag) if tag & 7 != 2 => return Err("a frame that is not an event"),
                _ => (),
            }
        }
        Ok(start)
    }

    /// Calls recv once; returns the number of bytes, or the reason for the connection's end.
    fn receive(
        &mut self,
        buffer: &mut [u8],
        mode: Mode,
        latencies: &mut Vec<u64>,
    ) -> Result<usize, &'static str> {
        let kept = self.rest.len();
        buffer[..kept].copy_from_slice(&self.rest);
        let received = match self.socket.read(&mut buffer[kept..kept + PIECE]) {
            Ok(0) => return Err("the connection has ended"),
            Ok(received) => received,
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                return Ok(0)
            }
            Err(_) => return Err("the connection broke"),
        };
        self.rest.clear();
        if self.wrong.is_none() {
            match self.walk(&buffer[..kept + received], mode, latencies) {
                Ok(taken) => self.rest.extend_from_slice(&buffer[taken..kept + received]),
                Err(why) => self.wrong = Some(why),
            }
        }
        Ok(received)
    }
}

fn report(clients: &[Client], last_ns: u64) -> String {
    let events: Vec<u64> = clients.iter().map(|client| client.events).collect();
    let wrong: Vec<String> = (clients.iter().enumerate())
        .filter_map(|(number, client)| Some(format!("client {number}: {}", client.wrong?)))
        .collect();
    format!(r#"{{"events": {events:?}, "wrong": {wrong:?}, "last_ns": {last_ns}}}"#)
}

fn latency(latencies: &mut Vec<u64>) -> String {
    latencies.sort_unstable();
    let at = |part: f64| match latencies.len() {
        0 => 0,
        count => latencies[((count - 1) as f64 * part).round() as usize],
    };
    let line = format!(
        r#"{{"count": {}, "p50": {}, "p99": {}}}"#,
        latencies.len(),
        at(0.5),
        at(0.99)
    );
    latencies.clear();
    line
}

fn run(address: &str, count: usize, mode: Mode) -> io::Result<()> {
    let start_ns = now_ns();
    let mut clients = Vec::with_capacity(count);
    for _ in 0..count {
        let socket = TcpStream::connect(address)?;
        socket.set_nonblocking(true)?;
        let (rest, wrong) = (Vec::new(), None);
        clients.push(Client {
            socket,
            rest,
            events: 0,
            wrong,
        });
    }
    let mut watched: Vec<libc::pollfd> = (clients.iter().map(|client| client.socket.as_raw_fd()))
        .chain([0])
        .map(|fd| libc::pollfd {
            fd,
            events: libc::POLLIN,
            revents: 0,
        })
        .collect();
    let mut buffer = vec![0; LARGEST_FRAME + 4 + PIECE];
    let mut latencies = Vec::new();
    let (mut bytes, mut last_ns, mut last) = (0, 0, Instant::now());
    // The total and the time without a byte that end a `wait`.
    let mut waiting: Option<(u64, Duration)> = None;
    // Whether the last poll found no data: only then does the time without a byte count.
    let mut silent = false;
    say(&format!(r#"{{"start_ns": {start_ns}}}"#));
    loop {
        let mut timeout = -1;
        if let Some((total, quiet)) = waiting {
            let events: u64 = clients.iter().map(|client| client.events).sum();
            let left = quiet.saturating_sub(last.elapsed());
            if events >= total || (silent && left.is_zero()) {
                waiting = None;
                say(&report(&clients, last_ns));
            } else {
                timeout = left.as_millis() as i32 + 1;
            }
        }
        // SAFETY: the pointer and the length belong to a vector that outlives the call.
        let ready =
            unsafe { libc::poll(watched.as_mut_ptr(), watched.len() as libc::nfds_t, timeout) };
        if ready < 0 && io::Error::last_os_error().kind() != ErrorKind::Interrupted {
            return Err(io::Error::last_os_error());
        }
        silent = ready == 0;
        let before = bytes;
        for (watch, client) in watched.iter_mut().zip(&mut clients) {
            if ready > 0 && watch.revents != 0 {
                match client.receive(&mut buffer, mode, &mut latencies) {
                    Ok(received) => bytes += received,
                    Err(why) => {
                        client.wrong = client.wrong.or(Some(why));
                        watch.fd = -1; // poll ignores it
                    }
                }
            }
        }
        if bytes > before {
            (last_ns, last) = (now_ns(), Instant::now());
        }
        if ready > 0 && watched[count].revents != 0 {
            let mut line = String::new();
            if io::stdin().read_line(&mut line)? == 0 {
                return Ok(());
            }
            let command = Command::parse(&line);
            match command.word.as_str() {
                "wait" => {
                    let quiet = Duration::from_secs_f64(command.number("quiet"));
                    waiting = Some((command.number("total") as u64, quiet));
                    last = Instant::now();
                }
                "latency" => say(&latency(&mut latencies)),
                "reset" => {
                    for client in &mut clients {
                        client.events = 0;
                    }
                    say("{}");
                }
                word => fail(&format!("read: unknown command {word:?}")),
            }
        }
    }
}

fn main() {
    let arguments: Vec<String> = args().skip(1).collect();
    let usage = || fail("usage: read 127.0.0.1:PORT CLIENTS count|increments|timed");
    let [address, count, mode] = &arguments[..] else {
        usage()
    };
    let mode = match mode.as_str() {
        "count" => Mode::Count,
        "increments" => Mode::Increments,
        "timed" => Mode::Timed,
        _ => usage(),
    };
    if let Err(e) = run(address, count.parse().unwrap_or_else(|_| usage()), mode) {
        fail(&format!("read: {e}"));
    }
}
