//! Prints the totals of a txmetrics-tcp stream when the server closes the connection.
//!
//!     cargo run 127.0.0.1:5000

use std::collections::BTreeMap;
use std::error::Error;
use std::io::{BufRead, BufReader, Read};
use std::net::TcpStream;

use prost::Message;
use proto::metric::Operation;

mod proto {
    include!(concat!(env!("OUT_DIR"), "/txmetrics_tcp.rs"));
}

const MAX_FRAME: u64 = 1 << 20;

/// Kind, name and labels.
type Series = (&'static str, String, BTreeMap<String, String>);

#[derive(Default)]
struct Totals {
    /// The totals of counters, and the numbers of samples of histograms.
    counts: BTreeMap<Series, u64>,
    gauges: BTreeMap<Series, f64>,
}

impl Totals {
    fn apply(&mut self, metric: proto::Metric) {
        let Some(operation) = metric.operation else {
            return; // an operation of a later version
        };
        let series = |kind| (kind, metric.name, metric.labels);
        match operation {
            Operation::IncrementCounter(value) => {
                let total = self.counts.entry(series("counter")).or_default();
                *total = total.wrapping_add(value); // modulo 2^64
            }
            Operation::SetCounter(value) => {
                *self.counts.entry(series("counter")).or_default() = value
            }
            Operation::IncrementGauge(value) => {
                *self.gauges.entry(series("gauge")).or_default() += value
            }
            Operation::DecrementGauge(value) => {
                *self.gauges.entry(series("gauge")).or_default() -= value
            }
            Operation::SetGauge(value) => *self.gauges.entry(series("gauge")).or_default() = value,
            Operation::RecordHistogram(_) => {
                *self.counts.entry(series("histogram")).or_default() += 1
            }
        }
    }
}

fn read_varint(stream: &mut impl Read) -> Result<u64, Box<dyn Error>> {
    let mut value = 0;
    for (shift, byte) in (0..64).step_by(7).zip(stream.bytes()) {
        let byte = byte?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err("the stream ended within a frame".into())
}

fn consume(address: &str) -> Result<Totals, Box<dyn Error>> {
    let mut totals = Totals::default();
    let mut stream = BufReader::new(TcpStream::connect(address)?);
    while !stream.fill_buf()?.is_empty() {
        let length = read_varint(&mut stream)?;
        if length > MAX_FRAME {
            return Err(format!("the server sent a frame of {length} bytes").into());
        }
        let mut frame = Vec::new();
        stream.by_ref().take(length).read_to_end(&mut frame)?;
        if (frame.len() as u64) < length {
            return Err("the stream ended within a frame".into());
        }
        // An empty frame is an event without a variant.
        if let Some(proto::event::Event::Metric(metric)) = proto::Event::decode(&frame[..])?.event {
            totals.apply(metric);
        }
    }
    Ok(totals)
}

fn show((kind, name, labels): Series, total: impl std::fmt::Debug) {
    print!("{kind}\t{name}");
    for (key, value) in labels {
        print!("\t{key}={value}");
    }
    println!("\t{total:?}");
}

fn main() {
    let Some(address) = std::env::args().nth(1) else {
        eprintln!("usage: consume HOST:PORT");
        std::process::exit(2);
    };
    match consume(&address) {
        Ok(totals) => {
            totals
                .counts
                .into_iter()
                .for_each(|(series, total)| show(series, total));
            totals
                .gauges
                .into_iter()
                .for_each(|(series, total)| show(series, total));
        }
        Err(error) => {
            eprintln!("consume: {error}");
            std::process::exit(1);
        }
    }
}
