//! `decode FILE`: decodes a stream twice with prost, as a Rust client does; prints the number of
//! events, and the time of the second pass in seconds.

use std::env::args;
use std::hint::black_box;
use std::time::Instant;

use benchmark_peers::{fail, say};
use prost::Message;

include!(concat!(env!("OUT_DIR"), "/txmetrics_tcp.rs"));

fn main() {
    let arguments: Vec<String> = args().skip(1).collect();
    let [path] = &arguments[..] else {
        fail("usage: decode FILE")
    };
    let data = std::fs::read(path).unwrap_or_else(|e| fail(&format!("decode: {path}: {e}")));
    decode(&data);
    let start = Instant::now();
    let events = decode(&data);
    let seconds = start.elapsed().as_secs_f64();
    say(&format!(r#"{{"events": {events}, "seconds": {seconds}}}"#));
}

fn decode(mut rest: &[u8]) -> u64 {
    let mut events = 0;
    while !rest.is_empty() {
        match Event::decode_length_delimited(&mut rest) {
            Ok(event) => black_box(event),
            Err(e) => fail(&format!("decode: event {events}: {e}")),
        };
        events += 1;
    }
    events
}
