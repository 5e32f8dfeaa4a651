// Prints the totals of a txmetrics-tcp stream when the server closes the connection.
//
//     npm install
//     protoc --proto_path=../../../proto --include_imports --descriptor_set_out=event.binpb txmetrics_tcp/event.proto
//     node consume.mjs 127.0.0.1:5000

import { readFileSync } from "node:fs";
import { connect } from "node:net";
import { createFileRegistry, fromBinary } from "@bufbuild/protobuf";
import { sizeDelimitedDecodeStream } from "@bufbuild/protobuf/wire";
import { FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";

const schema = readFileSync(new URL("event.binpb", import.meta.url));
const files = createFileRegistry(fromBinary(FileDescriptorSetSchema, schema));
const Event = files.getMessage("txmetrics_tcp.Event");

// The kind of each operation, and the total after it.
const operations = {
  incrementCounter: ["counter", (total, value) => BigInt.asUintN(64, total + value)],
  setCounter: ["counter", (total, value) => value],
  incrementGauge: ["gauge", (total, value) => total + value],
  decrementGauge: ["gauge", (total, value) => total - value],
  setGauge: ["gauge", (total, value) => value],
  recordHistogram: ["histogram", (total) => total + 1n],
};

// By kind, name and labels, as JSON. The totals of counters and histograms are BigInts.
const totals = new Map();

function apply({ name, labels, operation }) {
  const [kind, after] = operations[operation.case];
  const sorted = Object.keys(labels).sort().map((label) => [label, labels[label]]);
  const series = JSON.stringify([kind, name, sorted]);
  const total = totals.get(series) ?? (kind === "gauge" ? 0 : 0n);
  totals.set(series, after(total, operation.value));
}

try {
  const [, host, port] = process.argv[2]?.match(/^(.+):(\d+)$/) ?? [];
  if (!port) throw new Error("usage: node consume.mjs HOST:PORT");
  const frames = sizeDelimitedDecodeStream(Event, connect(port, host), { readMaxBytes: 1 << 20 });
  for await (const { event } of frames) {
    // Unknown variants, and the operations of later versions, have no case. An empty event has none either.
    if (event.case === "metric" && event.value.operation.case) apply(event.value);
  }
  for (const [series, total] of totals) {
    const [kind, name, labels] = JSON.parse(series);
    const text = Object.is(total, -0) ? "-0" : String(total);
    console.log([kind, name, ...labels.map((label) => label.join("=")), text].join("\t"));
  }
} catch (error) {
  console.error(`consume: ${error.message || error.code}`);
  process.exitCode = 1;
}
