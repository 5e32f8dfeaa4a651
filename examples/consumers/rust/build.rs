fn main() -> std::io::Result<()> {
    // Labels in a BTreeMap, which can be part of a key.
    let mut config = prost_build::Config::new();
    config.btree_map(["."]);
    config.compile_protos(
        &["../../../proto/txmetrics_tcp/event.proto"],
        &["../../../proto"],
    )
}
