fn main() {
    // As the reference has it: labels in a BTreeMap.
    let mut config = prost_build::Config::new();
    config.btree_map(["."]);
    (config.compile_protos(&["../../proto/event.proto"], &["../../proto"])).expect("protoc");
}
