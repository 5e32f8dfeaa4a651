//! `serve ADDRESS`: the published Rust exporter, sending a known set of metrics about every 50 ms.
//!
//! Prints "listening" when it listens and has stored its metadata, and exits when standard input
//! closes. Exit status: 0 then, 1 if it cannot listen, 2 for wrong arguments.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::process::{exit, ExitCode};
use std::thread;
use std::time::Duration;

use metrics::{
    counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram, Unit,
};
use metrics_exporter_tcp::TcpBuilder;

fn describe() {
    describe_counter!("rust_requests", Unit::Count, "requests served");
    describe_counter!(
        "rust_sent",
        Unit::Bytes,
        "bytes sent so far, as a total kept elsewhere"
    );
    describe_gauge!("rust_memory", Unit::Bytes, "memory in use");
    describe_gauge!("rust_load", Unit::Percent, "eine Größe: µs, 東京");
    describe_histogram!("rust_latency", Unit::Seconds, "time to answer");
    describe_histogram!("rust_size", Unit::Kibibytes, "size of an answer");
    describe_gauge!("rust_no_unit", "described without a unit");
}

/// Records the same events in each round, except that `rust_sent` grows by 1024 each time.
fn record(round: u64) {
    counter!("rust_requests", "route" => "/a", "system" => "foo").increment(1);
    counter!("rust_requests", "route" => "/b", "system" => "東京").increment(3);
    counter!("rust_sent").absolute(1024 * round);
    counter!("rust_largest").absolute(u64::MAX);

    let memory = gauge!("rust_memory", "pool" => "main");
    memory.set(1024.0);
    memory.increment(768.0);
    memory.decrement(256.0);
    gauge!("rust_load").set(12.5);
    gauge!("rust_no_unit").set(-2.25);
    gauge!("rust_special", "value" => "nan").set(f64::NAN);
    gauge!("rust_special", "value" => "inf").set(f64::INFINITY);
    gauge!("rust_special", "value" => "-inf").set(f64::NEG_INFINITY);

    let latency = histogram!("rust_latency", "route" => "/a");
    latency.record(0.25);
    latency.record(Duration::from_micros(1500));
    histogram!("rust_size").record_many(2.0, 3);
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address] = &arguments[..] else {
        eprintln!("usage: serve ADDRESS");
        return ExitCode::from(2);
    };
    let address: SocketAddr = match address.parse() {
        Ok(address) => address,
        Err(e) => {
            eprintln!("serve: {address} is not of the form 127.0.0.1:PORT: {e}");
            return ExitCode::from(2);
        }
    };
    if let Err(e) = TcpBuilder::new().listen_address(address).install() {
        eprintln!("serve: cannot listen on {address}: {e}");
        return ExitCode::FAILURE;
    }

    // The exporter's thread takes descriptions from a queue, and never sends them to a client that
    // it accepted before. So print "listening" a little later.
    describe();
    thread::sleep(Duration::from_millis(100));
    println!("listening");
    let _ = io::stdout().flush();

    thread::spawn(|| {
        let _ = io::copy(&mut io::stdin(), &mut io::sink());
        exit(0);
    });
    for round in 1.. {
        record(round);
        thread::sleep(Duration::from_millis(50));
    }
    unreachable!("the rounds do not end");
}
