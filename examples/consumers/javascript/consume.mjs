// Prints the totals of a txmetrics-tcp stream when the server closes the connection.
//
//     npm install
//     protoc --proto_path=../../../proto --include_imports --descriptor_set_out=event.binpb txmetrics_tcp/event.proto
//     node consume.mjs 127.0.0.1 5000

import { readFileSync } from "node:fs";
import { connect } from "node:net";
import { createFileRegistry, fromBinary } from "@bufbuild/protobuf";
import { sizeDelimitedDecodeStream } from "@bufbuild/protobuf/wire";
import { FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";

const schema = readFileSync(new URL("event.binpb", import.meta.url));
const files = createFileRegistry(fromBinary(FileDescriptorSetSchema, schema));
const Event = files.getMessage("txmetrics_tcp.Event");
const apply = {
  incrementCounter: (total = 0n, value) => BigInt.asUintN(64, total + value),
  setCounter: (total, value) => value,
  incrementGauge: (total = 0, value) => total + value,
  decrementGauge: (total = 0, value) => total - value,
  setGauge: (total, value) => value,
  recordHistogram: (total = 0n) => total + 1n,
};

const kinds = ["counter", "gauge", "histogram"];
const byName = ([one], [other]) => (one < other ? -1 : 1);
const key = (kind, { name, labels }) =>
  JSON.stringify([kind, name, Object.entries(labels).sort(byName)]);

const totals = new Map();
let version = 0;
const [host, port] = process.argv.slice(2);
for await (const { event } of sizeDelimitedDecodeStream(Event, connect(port, host))) {
  if (event.case === "gone") totals.delete(key(kinds[event.value.metricType], event.value));
  if (event.case === "status") version = event.value.protocolVersion;
  if (event.case === "snapshot" && event.value.complete) {
    // All totals follow; before version 3, histograms had none.
    for (const series of totals.keys()) {
      if (version >= 3 || !series.startsWith('["histogram"')) totals.delete(series);
    }
  }
  if (event.case === "histogramTotal") {
    // For a histogram, the total is the number of samples.
    const { zeros, notFinite, positive, negative } = event.value;
    const counts = [zeros, notFinite, ...(positive?.counts ?? []), ...(negative?.counts ?? [])];
    totals.set(key("histogram", event.value), counts.reduce((sum, count) => sum + count));
  }
  // Unknown variants and operations of a later version have no case.
  if (event.case !== "metric" || !event.value.operation.case) continue;
  const { operation } = event.value;
  const kind = operation.case.match(/Counter|Gauge|Histogram/)[0].toLowerCase();
  const series = key(kind, event.value);
  totals.set(series, apply[operation.case](totals.get(series), operation.value));
}
for (const [series, total] of totals) {
  console.log(`${series}\t${Object.is(total, -0) ? "-0" : total}`);
}
