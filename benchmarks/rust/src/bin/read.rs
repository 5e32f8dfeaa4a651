//! `read 127.0.0.1:PORT CLIENTS MODE`: so many clients of one server, in one thread.
//!
//! Each frame is taken apart down to the fields of its metric; nothing is copied or decoded but
//! the value. In the mode `numbered` that is the event's number, by which gaps are counted; in the
//! mode `timed` it is the time at which it was recorded; in the mode `plain` it is ignored.
//!
//! - `report`: what was read, for each client, and when.
//! - `latency`: the distribution of latencies since the last such command.

use std::env::args;
use std::io::{self, ErrorKind, Read};
use std::net::SocketAddr;
use std::sync::mpsc::{channel, Receiver};
use std::sync::Arc;
use std::thread;

use benchmark_peers::{commands, cpu_seconds, fail, now_ns, say, SEQUENCE};
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token, Waker};

const BUFFER: usize = 256 * 1024;
const COMMAND: Token = Token(usize::MAX);

#[derive(Clone, Copy, PartialEq)]
enum Mode {
    Numbered,
    Timed,
    Plain,
}

/// What a frame is.
enum Frame {
    /// An increment of a counter, by that much.
    Event(u64),
    /// A metric that sets a value.
    Set,
    Metadata,
    Empty,
    /// Some other metric.
    Other,
    /// An event that is neither metric nor metadata.
    Unknown,
}

#[derive(Default)]
struct Client {
    stream: Option<TcpStream>,
    buffer: Vec<u8>,
    filled: usize,
    events: u64,
    sets: u64,
    metadata: u64,
    empty: u64,
    other: u64,
    unknown: u64,
    bytes: u64,
    reads: u64,
    /// The number that the next event should carry, and how many were missing so far.
    expected: u64,
    gaps: u64,
    /// Why the rest of the stream cannot be understood.
    corrupt: Option<&'static str>,
    closed: bool,
    first_ns: u64,
    last_ns: u64,
}

fn varint(data: &[u8], at: &mut usize) -> Result<Option<u64>, &'static str> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let Some(byte) = data.get(*at) else {
            return Ok(None);
        };
        *at += 1;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(Some(value));
        }
    }
    Err("a varint of more than ten bytes")
}

fn whole(data: &[u8], at: &mut usize) -> Result<u64, &'static str> {
    varint(data, at)?.ok_or("a varint is cut off")
}

/// Skips a field of a known length.
fn skip(data: &[u8], at: &mut usize) -> Result<(), &'static str> {
    let length = whole(data, at)? as usize;
    *at = at
        .checked_add(length)
        .filter(|end| *end <= data.len())
        .ok_or("a field is cut off")?;
    Ok(())
}

fn classify(message: &[u8]) -> Result<Frame, &'static str> {
    let (Some(&tag), mut at) = (message.first(), 1) else {
        return Ok(Frame::Empty);
    };
    let start = at;
    skip(message, &mut at)?;
    if at != message.len() {
        return Err("an event of more than one field");
    }
    match tag {
        0x12 => (),
        0x0a => return Ok(Frame::Metadata),
        tag if tag & 7 == 2 => return Ok(Frame::Unknown),
        _ => return Err("an unknown tag in an event"),
    }
    at = start;
    whole(message, &mut at)?;
    let mut found = None;
    while at < message.len() {
        let tag = message[at];
        at += 1;
        match tag {
            0x0a | 0x12 | 0x1a => skip(message, &mut at)?,
            0x20 => found = Some(Frame::Event(whole(message, &mut at)?)),
            0x28 => {
                whole(message, &mut at)?;
                found = Some(Frame::Set);
            }
            0x31 | 0x39 | 0x41 | 0x49 => {
                at += 8;
                found = Some(if tag == 0x41 {
                    Frame::Set
                } else {
                    Frame::Other
                });
            }
            _ => return Err("an unknown tag in a metric"),
        }
    }
    if at != message.len() {
        return Err("a metric is cut off");
    }
    found.ok_or("a metric without an operation")
}

impl Client {
    fn connect(address: SocketAddr) -> io::Result<Client> {
        let stream = std::net::TcpStream::connect(address)?;
        stream.set_nonblocking(true)?;
        let stream = Some(TcpStream::from_std(stream));
        Ok(Client {
            stream,
            buffer: vec![0; BUFFER],
            ..Client::default()
        })
    }

    /// Reads what is there.
    fn read(&mut self, mode: Mode, latencies: &mut Vec<u64>) {
        loop {
            let stream = self.stream.as_mut().expect("a client that is connected");
            match stream.read(&mut self.buffer[self.filled..]) {
                Ok(0) => {
                    self.closed = true;
                    return;
                }
                Ok(read) => {
                    self.bytes += read as u64;
                    self.reads += 1;
                    self.filled += read;
                    if let Err(why) = self.parse(mode, latencies) {
                        self.corrupt = Some(why);
                    }
                    if self.corrupt.is_some() {
                        self.filled = 0;
                    }
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => return,
                Err(e) if e.kind() == ErrorKind::Interrupted => (),
                Err(e) => {
                    self.corrupt = self.corrupt.or(Some("the connection broke"));
                    eprintln!("read: {e}");
                    self.closed = true;
                    return;
                }
            }
        }
    }

    fn parse(&mut self, mode: Mode, latencies: &mut Vec<u64>) -> Result<(), &'static str> {
        let data = &self.buffer[..self.filled];
        let now = now_ns();
        let mut start = 0;
        let before = self.events;
        loop {
            let mut at = start;
            let Some(length) = varint(data, &mut at)? else {
                break;
            };
            if length > 64 * 1024 {
                return Err("a frame of more than 64 KiB");
            }
            let Some(message) = data.get(at..at + length as usize) else {
                break;
            };
            start = at + length as usize;
            match classify(message)? {
                Frame::Event(value) => {
                    self.events += 1;
                    match mode {
                        Mode::Numbered => {
                            self.gaps += value.wrapping_sub(self.expected) % SEQUENCE;
                            self.expected = value + 1;
                        }
                        Mode::Timed => latencies.push(now.saturating_sub(value)),
                        Mode::Plain => (),
                    }
                }
                Frame::Set => self.sets += 1,
                Frame::Metadata => self.metadata += 1,
                Frame::Empty => self.empty += 1,
                Frame::Other => self.other += 1,
                Frame::Unknown => self.unknown += 1,
            }
        }
        if self.events > before {
            self.last_ns = now;
            if before == 0 {
                self.first_ns = now;
            }
        }
        self.buffer.copy_within(start..self.filled, 0);
        self.filled -= start;
        Ok(())
    }

    fn report(&self) -> String {
        let corrupt = match self.corrupt {
            Some(why) => format!("{why:?}"),
            None => "null".to_string(),
        };
        format!(
            concat!(
                r#"{{"events": {}, "sets": {}, "metadata": {}, "empty": {}, "other": {}, "#,
                r#""unknown": {}, "bytes": {}, "reads": {}, "gaps": {}, "corrupt": {}, "closed": {}, "#,
                r#""first_ns": {}, "last_ns": {}}}"#
            ),
            self.events,
            self.sets,
            self.metadata,
            self.empty,
            self.other,
            self.unknown,
            self.bytes,
            self.reads,
            self.gaps,
            corrupt,
            self.closed,
            self.first_ns,
            self.last_ns
        )
    }
}

fn latency(latencies: &mut Vec<u64>) -> String {
    latencies.sort_unstable();
    let at = |part: f64| match latencies.len() {
        0 => 0,
        count => latencies[((count - 1) as f64 * part).round() as usize],
    };
    let line = format!(
        r#"{{"count": {}, "p50_ns": {}, "p90_ns": {}, "p99_ns": {}, "p999_ns": {}, "max_ns": {}}}"#,
        latencies.len(),
        at(0.5),
        at(0.9),
        at(0.99),
        at(0.999),
        at(1.0)
    );
    latencies.clear();
    line
}

fn answer(asked: &Receiver<String>, clients: &[Client], latencies: &mut Vec<u64>) {
    for word in asked.try_iter() {
        match word.as_str() {
            "report" => {
                let reports: Vec<String> = clients.iter().map(Client::report).collect();
                let clients = reports.join(", ");
                say(&format!(
                    r#"{{"clients": [{clients}], "cpu_seconds": {}}}"#,
                    cpu_seconds()
                ));
            }
            "latency" => say(&latency(latencies)),
            word => fail(&format!("read: unknown command {word:?}")),
        }
    }
}

fn run(address: SocketAddr, count: usize, mode: Mode) -> io::Result<()> {
    let mut poll = Poll::new()?;
    let mut clients = Vec::with_capacity(count);
    for number in 0..count {
        let mut client = Client::connect(address)?;
        let stream = client.stream.as_mut().expect("a client that is connected");
        poll.registry()
            .register(stream, Token(number), Interest::READABLE)?;
        clients.push(client);
    }
    say(&format!(r#"{{"connected": {count}}}"#));
    let waker = Arc::new(Waker::new(poll.registry(), COMMAND)?);
    let (ask, asked) = channel();
    thread::spawn(move || {
        for command in commands() {
            if ask.send(command.word).is_err() || waker.wake().is_err() {
                break;
            }
        }
        std::process::exit(0);
    });
    let mut latencies = Vec::new();
    let mut events = Events::with_capacity(1024);
    loop {
        match poll.poll(&mut events, None) {
            Err(e) if e.kind() == ErrorKind::Interrupted => continue,
            other => other?,
        }
        for event in events.iter() {
            match event.token() {
                COMMAND => answer(&asked, &clients, &mut latencies),
                Token(number) if !clients[number].closed => {
                    clients[number].read(mode, &mut latencies);
                }
                Token(_) => (),
            }
        }
    }
}

fn main() {
    let arguments: Vec<String> = args().skip(1).collect();
    let [address, count, mode] = &arguments[..] else {
        fail("usage: read 127.0.0.1:PORT CLIENTS numbered|timed|plain");
    };
    let mode = match mode.as_str() {
        "numbered" => Mode::Numbered,
        "timed" => Mode::Timed,
        "plain" => Mode::Plain,
        _ => fail("read: an argument cannot be understood"),
    };
    let (Ok(address), Ok(count)) = (address.parse(), count.parse()) else {
        fail("read: an argument cannot be understood");
    };
    if let Err(e) = run(address, count, mode) {
        fail(&format!("read: {e}"));
    }
}
