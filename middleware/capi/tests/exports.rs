//! What `libtalea.so` exports is what `talea.h` declares, and what shims ask for; and the header is C11 and C++ alike.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

fn header() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("include/talea.h")
}

fn said(command: &mut Command) -> String {
    let output = command.stderr(Stdio::piped()).output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Names of all functions that the header declares.
fn declared() -> BTreeSet<String> {
    let text = std::fs::read_to_string(header()).expect("the header is there");
    let code: String = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let ends = code.match_indices('(').map(|(at, _)| at);
    ends.filter_map(|end| {
        let name = code[..end].rsplit(|c: char| !word(c)).next().unwrap_or_default();
        name.starts_with("talea_").then(|| name.to_owned())
    })
    .collect()
}

#[test]
fn the_library_exports_what_the_header_declares_and_the_table() {
    let exe = std::env::current_exe().expect("a test knows its own path");
    let library = exe.parent().expect("tests lie in target/PROFILE/deps").join("libtalea.so");
    let listed = said(Command::new("nm").args(["-D", "--defined-only", "--format=posix"]).arg(&library));
    let exported: BTreeSet<String> =
        listed.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect();
    let mut wanted = declared();
    assert!(wanted.len() > 30, "the header was not understood: {wanted:?}");
    wanted.insert("talea_table".to_owned());
    assert_eq!(exported, wanted);
}

#[test]
fn the_header_compiles_as_c11_and_as_cpp_on_its_own() {
    for (compiler, language) in [("cc", ["-x", "c", "-std=c11"]), ("c++", ["-x", "c++", "-std=c++11"])] {
        let mut command = Command::new(compiler);
        command.args(language).args(["-Wall", "-Wextra", "-Werror", "-pedantic", "-fsyntax-only"]);
        said(command.arg(header()));
    }
}
