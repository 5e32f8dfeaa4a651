fn main() {
    // Labels in a BTreeMap, as in the reference.
    let mut config = prost_build::Config::new();
    config.btree_map(["."]);
    (config.compile_protos(&["../../proto/txmetrics_tcp/event.proto"], &["../../proto"])).expect("protoc");
}
