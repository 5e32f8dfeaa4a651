//! `decode FILE ROUNDS`: decodes a stream with prost, as a client in Rust does; prints how many
//! events that were, and how long each round took, in seconds.

use std::collections::BTreeMap;
use std::env::args;
use std::hint::black_box;
use std::time::Instant;

use benchmark_peers::{fail, say};
use prost::Message;
use prost_types::Timestamp;

#[derive(Clone, PartialEq, Message)]
struct Event {
    #[prost(oneof = "Body", tags = "1, 2")]
    body: Option<Body>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Body {
    #[prost(message, tag = "1")]
    Metadata(Metadata),
    #[prost(message, tag = "2")]
    Metric(Metric),
}

#[derive(Clone, PartialEq, Message)]
struct Metadata {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(int32, tag = "2")]
    metric_type: i32,
    #[prost(string, optional, tag = "3")]
    unit: Option<String>,
    #[prost(string, optional, tag = "4")]
    description: Option<String>,
}

#[derive(Clone, PartialEq, Message)]
struct Metric {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "2")]
    timestamp: Option<Timestamp>,
    #[prost(btree_map = "string, string", tag = "3")]
    labels: BTreeMap<String, String>,
    #[prost(oneof = "Operation", tags = "4, 5, 6, 7, 8, 9")]
    operation: Option<Operation>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Operation {
    #[prost(uint64, tag = "4")]
    IncrementCounter(u64),
    #[prost(uint64, tag = "5")]
    SetCounter(u64),
    #[prost(double, tag = "6")]
    IncrementGauge(f64),
    #[prost(double, tag = "7")]
    DecrementGauge(f64),
    #[prost(double, tag = "8")]
    SetGauge(f64),
    #[prost(double, tag = "9")]
    RecordHistogram(f64),
}

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
