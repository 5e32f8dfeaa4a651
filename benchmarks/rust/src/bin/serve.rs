//! `serve 127.0.0.1:PORT BUFFER`: the published exporter, recording on command.
//!
//! - `record count= seconds= rate= tick_us= threads= mode=`: record that many events, or for so
//!   long where count is 0. At full speed if rate is 0; else that many a second, in ticks, and what
//!   a tick missed is made up for by at most one tick's worth in the next. Each event carries 1 in
//!   the mode 0, its number in the mode 1, so that gaps show, and the time in the mode 2.
//! - `cost count= rounds=`: the processor time of one record, from rounds of a few, with pauses in
//!   which the exporter takes them.
//! - `stats`: processor time.

use std::env::args;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use benchmark_peers::{
    commands, cpu_seconds, fail, now_ns, say, thread_seconds, Command, SEQUENCE,
};
use metrics::{counter, Counter};
use metrics_exporter_tcp::TcpBuilder;

fn handle() -> Counter {
    counter!("requests_handled", "method" => "GET", "route" => "/users")
}

struct Source {
    handle: Counter,
    next: u64,
    mode: u64,
}

impl Source {
    fn record(&mut self, count: u64) {
        if self.mode == 2 {
            for _ in 0..count {
                self.handle.increment(now_ns());
            }
        } else if self.mode == 1 {
            for _ in 0..count {
                self.handle.increment(self.next);
                self.next = (self.next + 1) % SEQUENCE;
            }
        } else {
            for _ in 0..count {
                self.handle.increment(1);
            }
        }
    }

    /// Records as a command says, and returns how many.
    fn run(&mut self, command: &Command) -> u64 {
        let count = command.number("count") as u64;
        let seconds = command.number("seconds");
        let rate = command.number("rate");
        let start = Instant::now();
        let over = |done: u64| match count {
            0 => start.elapsed().as_secs_f64() >= seconds,
            count => done >= count,
        };
        let mut done = 0;
        if rate == 0.0 {
            while !over(done) {
                let slice = if count == 0 {
                    1024
                } else {
                    1024.min(count - done)
                };
                self.record(slice);
                done += slice;
            }
            return done;
        }
        let tick = command.number("tick_us") / 1e6;
        let mut due = 0.0;
        let mut last = 0.0;
        while !over(done) {
            let now = start.elapsed().as_secs_f64();
            due += rate * (now - last).min(2.0 * tick);
            last = now;
            let slice = due as u64;
            due -= slice as f64;
            self.record(slice);
            done += slice;
            let spent = start.elapsed().as_secs_f64() - now;
            thread::sleep(Duration::from_secs_f64((tick - spent).max(0.0)));
        }
        done
    }
}

fn record(source: &mut Source, command: &Command) {
    let threads = command.number("threads") as u64;
    source.mode = command.number("mode") as u64;
    let start_ns = now_ns();
    let start = Instant::now();
    let recorded = if threads == 1 {
        source.run(command)
    } else {
        thread::scope(|scope| {
            let runs: Vec<_> = (0..threads)
                .map(|_| {
                    scope.spawn(|| {
                        let mut source = Source {
                            handle: handle(),
                            next: 0,
                            mode: 0,
                        };
                        source.run(command)
                    })
                })
                .collect();
            runs.into_iter()
                .map(|run| run.join().expect("no panic"))
                .sum()
        })
    };
    let seconds = start.elapsed().as_secs_f64();
    say(&format!(
        r#"{{"recorded": {recorded}, "seconds": {seconds}, "start_ns": {start_ns}}}"#
    ));
}

fn cost(handle: &Counter, command: &Command) {
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
    say(&format!(r#"{{"ns": {}}}"#, nanos[nanos.len() / 2]));
}

fn main() {
    let arguments: Vec<String> = args().skip(1).collect();
    let [address, buffer] = &arguments[..] else {
        fail("usage: serve 127.0.0.1:PORT BUFFER")
    };
    let (Ok(address), Ok(buffer)) = (address.parse::<SocketAddr>(), buffer.parse::<usize>()) else {
        fail("serve: an argument cannot be understood");
    };
    if let Err(e) = TcpBuilder::new()
        .listen_address(address)
        .buffer_size(Some(buffer))
        .install()
    {
        fail(&format!("serve: cannot listen on {address}: {e}"));
    }
    let mut source = Source {
        handle: handle(),
        next: 0,
        mode: 0,
    };
    say(&format!(r#"{{"port": {}}}"#, address.port()));
    for command in commands() {
        match command.word.as_str() {
            "record" => record(&mut source, &command),
            "cost" => cost(&source.handle, &command),
            "stats" => say(&format!(r#"{{"cpu_seconds": {}}}"#, cpu_seconds())),
            word => fail(&format!("serve: unknown command {word:?}")),
        }
    }
}
