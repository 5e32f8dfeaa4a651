//! `receive ADDRESS [COUNT]`: read a stream as a client and print each event as a line of JSON.
//!
//! Exits at the end of the stream or after COUNT events. Exit status: 0 for success, 1 if the
//! stream cannot be read or decoded, 2 for wrong arguments.

use std::collections::BTreeMap;
use std::io::{self, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::ExitCode;

use prost::Message;
use prost_types::Timestamp;
use serde_json::{json, Value};

/// A larger integer may lose digits in a JSON reader that has only doubles.
const LARGEST_EXACT: u64 = 1 << 53;
/// Longer than any event: a larger length means that the stream is corrupt.
const LONGEST_FRAME: u64 = 16 << 20;

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
    #[prost(enumeration = "MetricType", tag = "2")]
    metric_type: i32,
    // A oneof with a single string has the same encoding as an optional string.
    #[prost(string, optional, tag = "3")]
    unit: Option<String>,
    #[prost(string, optional, tag = "4")]
    description: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
enum MetricType {
    Counter = 0,
    Gauge = 1,
    Histogram = 2,
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

fn integer(value: u64) -> Value {
    if value > LARGEST_EXACT {
        json!(value.to_string())
    } else {
        json!(value)
    }
}

fn float(value: f64) -> Value {
    if value.is_nan() {
        json!("nan")
    } else if value.is_infinite() {
        json!(if value > 0.0 { "inf" } else { "-inf" })
    } else {
        json!(value)
    }
}

fn metadata_line(metadata: Metadata) -> Result<Value, String> {
    let kind = match MetricType::try_from(metadata.metric_type) {
        Ok(MetricType::Counter) => "counter",
        Ok(MetricType::Gauge) => "gauge",
        Ok(MetricType::Histogram) => "histogram",
        Err(_) => return Err(format!("unknown metric type {}", metadata.metric_type)),
    };
    Ok(json!({
        "what": "metadata",
        "name": metadata.name,
        "kind": kind,
        "unit": metadata.unit,
        "description": metadata.description,
    }))
}

fn metric_line(metric: Metric) -> Result<Value, String> {
    let (operation, value) = match metric.operation {
        Some(Operation::IncrementCounter(v)) => ("increment_counter", integer(v)),
        Some(Operation::SetCounter(v)) => ("set_counter", integer(v)),
        Some(Operation::IncrementGauge(v)) => ("increment_gauge", float(v)),
        Some(Operation::DecrementGauge(v)) => ("decrement_gauge", float(v)),
        Some(Operation::SetGauge(v)) => ("set_gauge", float(v)),
        Some(Operation::RecordHistogram(v)) => ("record_histogram", float(v)),
        None => return Err(format!("metric {:?} has no known operation", metric.name)),
    };
    Ok(json!({
        "what": "metric",
        "name": metric.name,
        "seconds": metric.timestamp.as_ref().map(|t| t.seconds),
        "nanos": metric.timestamp.as_ref().map(|t| t.nanos),
        "labels": metric.labels,
        "operation": operation,
        "value": value,
    }))
}

fn line(frame: &[u8]) -> Result<Value, String> {
    let event = Event::decode(frame).map_err(|e| e.to_string())?;
    match event.body {
        None => Ok(json!({"what": "empty"})),
        Some(Body::Metadata(metadata)) => metadata_line(metadata),
        Some(Body::Metric(metric)) => metric_line(metric),
    }
}

/// Reads one byte; None at the end of the stream.
fn byte(stream: &mut impl Read) -> Result<Option<u8>, String> {
    let mut one = [0];
    loop {
        match stream.read(&mut one) {
            Ok(0) => return Ok(None),
            Ok(_) => return Ok(Some(one[0])),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(format!("cannot read: {e}")),
        }
    }
}

/// Reads the next frame without its length; None at the end of the stream.
fn frame(stream: &mut impl Read) -> Result<Option<Vec<u8>>, String> {
    let mut length = 0;
    let mut shift = 0;
    loop {
        match byte(stream)? {
            None if shift == 0 => return Ok(None),
            None => return Err("the stream ends inside a length".into()),
            Some(b) => {
                length |= u64::from(b & 0x7f) << shift;
                if b & 0x80 == 0 {
                    break;
                }
            }
        }
        shift += 7;
        if shift >= 64 {
            return Err("a length of more than nine bytes".into());
        }
    }
    if length > LONGEST_FRAME {
        return Err(format!("a frame of {length} bytes"));
    }
    let mut frame = vec![0; length as usize];
    stream.read_exact(&mut frame).map_err(|e| match e.kind() {
        io::ErrorKind::UnexpectedEof => format!("the stream ends inside a frame of {length} bytes"),
        _ => format!("cannot read: {e}"),
    })?;
    Ok(Some(frame))
}

fn run(address: &str, count: u64) -> Result<(), String> {
    let stream =
        TcpStream::connect(address).map_err(|e| format!("cannot connect to {address}: {e}"))?;
    let mut stream = BufReader::new(stream);
    let mut out = io::stdout().lock();
    for number in 1..=count {
        let Some(frame) = frame(&mut stream).map_err(|e| format!("frame {number}: {e}"))? else {
            break;
        };
        let line = line(&frame).map_err(|e| format!("frame {number}: {e}"))?;
        writeln!(out, "{line}")
            .and_then(|()| out.flush())
            .map_err(|e| format!("cannot write: {e}"))?;
    }
    Ok(())
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (address, count) = match &arguments[..] {
        [address] => (address, Ok(u64::MAX)),
        [address, count] => (address, count.parse()),
        _ => {
            eprintln!("usage: receive ADDRESS [COUNT]");
            return ExitCode::from(2);
        }
    };
    let Ok(count) = count else {
        eprintln!("receive: COUNT is not a number");
        return ExitCode::from(2);
    };
    match run(address, count) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("receive: {message}");
            ExitCode::FAILURE
        }
    }
}
