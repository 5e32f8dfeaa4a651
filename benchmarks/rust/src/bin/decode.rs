//! `decode FILE ROUNDS`: decodes a stream with prost, as a client in Rust does; prints how many
//! events that were, and how long each round took, in seconds.

use std::env::args;
use std::hint::black_box;
use std::time::Instant;

use benchmark_peers::{fail, say};
use prost::Message;

include!(concat!(env!("OUT_DIR"), "/txmetrics_tcp.rs"));

fn main() {
    let arguments: Vec<String> = args().skip(1).collect();
    let [path, rounds] = &arguments[..] else {
        fail("usage: decode FILE ROUNDS")
    };
    let Ok(rounds) = rounds.parse::<u32>() else {
        fail("decode: ROUNDS is not a number")
    };
    let data = std::fs::read(path).unwrap_or_else(|e| fail(&format!("decode: {path}: {e}")));
    let mut events = 0;
    let times: Vec<String> = (0..rounds)
        .map(|_| {
            let start = Instant::now();
            let mut rest = &data[..];
            events = 0;
            while !rest.is_empty() {
                match Event::decode_length_delimited(&mut rest) {
                    Ok(event) => black_box(event),
                    Err(e) => fail(&format!("decode: event {events}: {e}")),
                };
                events += 1;
            }
            start.elapsed().as_secs_f64().to_string()
        })
        .collect();
    say(&format!(
        r#"{{"events": {events}, "seconds": [{}]}}"#,
        times.join(", ")
    ));
}
