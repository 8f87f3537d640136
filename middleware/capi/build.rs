//! Gives the library its soname, and puts a link of that name beside it for programs that run from the build directory.

use std::path::PathBuf;

const SONAME: &str = "libtalea.so.0";

fn main() {
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,{SONAME}");
    println!("cargo:rerun-if-changed=build.rs");
    // OUT_DIR is PROFILE/build/PACKAGE/out. A missing link only means that the library has to be found otherwise.
    let profile =
        std::env::var_os("OUT_DIR").map(PathBuf::from).and_then(|out| Some(out.ancestors().nth(3)?.to_owned()));
    if let Some(profile) = profile {
        let _ = std::fs::remove_file(profile.join(SONAME));
        let _ = std::os::unix::fs::symlink("libtalea.so", profile.join(SONAME));
    }
}
