//! Tells the source for which family of MPI it is compiled: the driver's packages differ in nothing else.

fn main() {
    println!("cargo::rustc-check-cfg=cfg(family, values(\"mpich\", \"openmpi\", \"standard\"))");
    println!("cargo::rerun-if-changed=build.rs");
    let package = std::env::var("CARGO_PKG_NAME").unwrap_or_default();
    let family = package.strip_prefix("talea-mpiio-").unwrap_or("mpich");
    println!("cargo::rustc-cfg=family=\"{family}\"");
}
