//! `serve 127.0.0.1:PORT BUFFER`: the published exporter, recording on command.
//!
//! - `record count= seconds= rate= tick_us= timed= null=`: record `count` events or, if count is 0,
//!   for `seconds`. Record at full speed if rate is 0, else at `rate` events per second in ticks;
//!   after a delay, a tick records at most twice its share. The value of an event is 1 or, if timed
//!   is 1, the time. With null, the same loop uses the no-op counter of `metrics`.
//! - `cost count= rounds=`: report the processor time of one record: the median of `rounds` bursts
//!   of `count`, with pauses in which the exporter takes the events.
//! - `stats`: report the processor time of this process.

use std::env::args;
use std::io;
use std::thread;
use std::time::{Duration, Instant};

use benchmark_peers::{fail, now_ns, process_seconds, say, thread_seconds, Command};
use metrics::{counter, Counter};
use metrics_exporter_tcp::TcpBuilder;

/// Records as the command specifies, and returns the number of events.
fn record(handle: &Counter, command: &Command) -> u64 {
    let (count, timed) = (
        command.number("count") as u64,
        command.number("timed") > 0.0,
    );
    let (seconds, rate) = (command.number("seconds"), command.number("rate"));
    let tick = command.number("tick_us") / 1e6;
    let start = Instant::now();
    let (mut done, mut due, mut last) = (0, 0.0, 0.0);
    loop {
        let now = start.elapsed().as_secs_f64();
        if (count == 0 && now >= seconds) || (count > 0 && done >= count) {
            return done;
        }
        let mut slice = 1024;
        if rate > 0.0 {
            due += rate * (now - last).min(2.0 * tick);
            last = now;
            slice = due as u64;
            due -= slice as f64;
        } else if count > 0 {
            slice = slice.min(count - done);
        }
        for _ in 0..slice {
            handle.increment(if timed { now_ns() } else { 1 });
        }
        done += slice;
        if rate > 0.0 {
            let spent = start.elapsed().as_secs_f64() - now;
            thread::sleep(Duration::from_secs_f64((tick - spent).max(0.0)));
        }
    }
}

fn cost(handle: &Counter, command: &Command) -> f64 {
    let count = command.number("count") as u64;
    let mut nanos: Vec<f64> = (0..command.number("rounds") as u64)
        .map(|_| {
            thread::sleep(Duration::from_millis(3));
            let start = thread_seconds();
            for _ in 0..count {
                handle.increment(1);
            }
            (thread_seconds() - start) * 1e9 / count as f64
        })
        .collect();
    nanos.sort_by(f64::total_cmp);
    nanos[nanos.len() / 2]
}

fn main() {
    let arguments: Vec<String> = args().skip(1).collect();
    let [address, buffer] = &arguments[..] else {
        fail("usage: serve 127.0.0.1:PORT BUFFER")
    };
    let (Ok(address), Ok(buffer)) = (address.parse::<std::net::SocketAddr>(), buffer.parse())
    else {
        fail("serve: invalid argument");
    };
    let builder = TcpBuilder::new()
        .listen_address(address)
        .buffer_size(Some(buffer));
    if let Err(e) = builder.install() {
        fail(&format!("serve: cannot listen on {address}: {e}"));
    }
    let handle = counter!("requests_handled", "method" => "GET", "route" => "/users");
    let null = Counter::noop();
    say(&format!(r#"{{"port": {}}}"#, address.port()));
    for line in io::stdin().lines().map_while(Result::ok) {
        let command = Command::parse(&line);
        match command.word.as_str() {
            "record" => {
                let start_ns = now_ns();
                let silent = command.number("null") > 0.0;
                let recorded = record(if silent { &null } else { &handle }, &command);
                let seconds = (now_ns() - start_ns) as f64 / 1e9;
                say(&format!(
                    r#"{{"recorded": {recorded}, "seconds": {seconds}, "start_ns": {start_ns}}}"#
                ));
            }
            "cost" => say(&format!(r#"{{"ns": {}}}"#, cost(&handle, &command))),
            "stats" => say(&format!(r#"{{"cpu_seconds": {}}}"#, process_seconds())),
            word => fail(&format!("serve: unknown command {word:?}")),
        }
    }
}
