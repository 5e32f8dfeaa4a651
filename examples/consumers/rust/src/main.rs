//! Prints the totals of a txmetrics-tcp stream when the server closes the connection.
//!
//!     cargo run 127.0.0.1 5000

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, ErrorKind, Read, Result};
use std::net::TcpStream;

use prost::Message;
use proto::{event::Event, metadata::MetricType, metric::Operation::*};

mod proto {
    include!(concat!(env!("OUT_DIR"), "/txmetrics_tcp.rs"));
}

type Series = (&'static str, String, BTreeMap<String, String>);

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let mut stream = BufReader::new(TcpStream::connect(arguments[1..].join(":"))?);
    let mut counts = BTreeMap::<Series, u64>::new();
    let mut gauges = BTreeMap::<Series, f64>::new();
    let mut version = 0;
    while !stream.fill_buf()?.is_empty() {
        let mut frame = vec![0; read_varint(&mut stream)?];
        stream.read_exact(&mut frame)?;
        let metric = match proto::Event::decode(&frame[..])?.event {
            Some(Event::Metric(metric)) => metric,
            Some(Event::Status(status)) => {
                version = status.protocol_version;
                continue;
            }
            Some(Event::Snapshot(snapshot)) if snapshot.complete => {
                // All totals follow; before version 3, histograms had none.
                counts.retain(|(kind, ..), _| version < 3 && *kind == "histogram");
                gauges.clear();
                continue;
            }
            Some(Event::HistogramTotal(total)) => {
                // For a histogram, the total is the number of samples.
                let sides = [total.positive, total.negative].into_iter().flatten();
                let samples = sides.flat_map(|side| side.counts).sum::<u64>();
                let series = ("histogram", total.name, total.labels);
                counts.insert(series, total.zeros + total.not_finite + samples);
                continue;
            }
            Some(Event::Gone(gone)) => {
                let series = |kind| (kind, gone.name, gone.labels);
                match MetricType::try_from(gone.metric_type) {
                    Ok(MetricType::Counter) => drop(counts.remove(&series("counter"))),
                    Ok(MetricType::Gauge) => drop(gauges.remove(&series("gauge"))),
                    Ok(MetricType::Histogram) => drop(counts.remove(&series("histogram"))),
                    Err(_) => {} // a kind of a later version
                }
                continue;
            }
            _ => continue, // another event, or one of a later version
        };
        let series = |kind| (kind, metric.name, metric.labels);
        match metric.operation {
            Some(IncrementCounter(value)) => {
                let total = counts.entry(series("counter")).or_default();
                *total = total.wrapping_add(value); // modulo 2^64
            }
            Some(SetCounter(value)) => *counts.entry(series("counter")).or_default() = value,
            Some(IncrementGauge(value)) => *gauges.entry(series("gauge")).or_default() += value,
            Some(DecrementGauge(value)) => *gauges.entry(series("gauge")).or_default() -= value,
            Some(SetGauge(value)) => *gauges.entry(series("gauge")).or_default() = value,
            Some(RecordHistogram(_)) => *counts.entry(series("histogram")).or_default() += 1,
            None => {} // an operation of a later version
        }
    }
    for (series, total) in counts {
        println!("{series:?}\t{total}");
    }
    for (series, total) in gauges {
        println!("{series:?}\t{total:?}");
    }
    Ok(())
}

fn read_varint(stream: &mut impl Read) -> Result<usize> {
    let (mut value, mut byte) = (0u64, [0]);
    for shift in (0..64).step_by(7) {
        stream.read_exact(&mut byte)?;
        value |= u64::from(byte[0] & 0x7f) << shift;
        if byte[0] < 0x80 {
            return Ok(value as usize);
        }
    }
    Err(ErrorKind::InvalidData.into())
}
