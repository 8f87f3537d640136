//! The committed `talea.h` is what cbindgen makes of the sources. `TALEA_WRITE_HEADER=1 cargo test -p talea-capi --test header`
//! writes it anew.

use std::path::Path;

#[test]
fn the_committed_header_is_current() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let config = cbindgen::Config::from_file(root.join("cbindgen.toml")).expect("cbindgen.toml is readable");
    let bindings = cbindgen::Builder::new()
        .with_config(config)
        .with_src(root.join("src/lib.rs"))
        .with_src(root.join("../abi/src/code.rs"))
        .generate()
        .expect("the sources can be bound");
    let mut made = Vec::new();
    bindings.write(&mut made);
    let path = root.join("include/talea.h");
    if std::env::var_os("TALEA_WRITE_HEADER").is_some() {
        std::fs::write(&path, &made).expect("the header can be written");
    }
    let committed = std::fs::read(&path).unwrap_or_default();
    assert!(committed == made, "talea.h is out of date: write it with TALEA_WRITE_HEADER=1 and commit it");
}
