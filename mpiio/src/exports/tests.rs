//! Compares the declarations with the site's own `mpi.h`.

use std::path::PathBuf;
use std::process::Command;

use super::{data, handles, inquiry, shared};
use crate::family;
use crate::real;

/// C's spelling of a type of [`crate::abi`].
fn in_c(kind: &str) -> String {
    let kind = kind.replace(' ', "");
    match kind.as_str() {
        "c_int" => "int".to_owned(),
        "c_char" => "char".to_owned(),
        "c_void" => "void".to_owned(),
        "Option<FileErrhandlerFn>" => "MPI_File_errhandler_function *".to_owned(),
        "Option<CopyAttrFn>" => "MPI_Comm_copy_attr_function *".to_owned(),
        "Option<DeleteAttrFn>" => "MPI_Comm_delete_attr_function *".to_owned(),
        "UserFn" => "MPI_User_function *".to_owned(),
        "QueryFn" => "MPI_Grequest_query_function *".to_owned(),
        "FreeFn" => "MPI_Grequest_free_function *".to_owned(),
        "CancelFn" => "MPI_Grequest_cancel_function *".to_owned(),
        other => {
            if let Some(rest) = other.strip_prefix("*mut") {
                format!("{} *", in_c(rest))
            } else if let Some(rest) = other.strip_prefix("*const") {
                format!("const {} *", in_c(rest))
            } else {
                other.to_owned()
            }
        }
    }
}

/// A C program that compiles only if every constant and prototype is the site's.
fn program() -> String {
    let mut text = "#include <mpi.h>\n#include <stddef.h>\n".to_owned();
    for (name, value) in family::INTEGERS.iter().chain(family::OBJECTS) {
        text += &format!("_Static_assert((long)(int){name} == {value}L, \"{name}\");\n");
    }
    let handle = size_of::<family::Handle>();
    for (name, size) in
        [("MPI_Comm", handle), ("MPI_Datatype", handle), ("MPI_Aint", 8), ("MPI_Offset", 8), ("MPI_Count", 8)]
    {
        text += &format!("_Static_assert(sizeof({name}) == {size}, \"{name}\");\n");
    }
    let lists = [data::SIGNATURES, handles::SIGNATURES, inquiry::SIGNATURES, shared::SIGNATURES, real::CALLED];
    let large_counts = family::COMPILER.1;
    for (name, kinds) in lists.into_iter().flatten().filter(|(name, _)| large_counts || !name.ends_with("_c")) {
        let result = match *name {
            "MPI_File_c2f" => "MPI_Fint",
            "MPI_File_f2c" => "MPI_File",
            _ => "int",
        };
        let arguments = if kinds.is_empty() {
            "void".to_owned()
        } else {
            kinds.iter().map(|k| in_c(k)).collect::<Vec<_>>().join(", ")
        };
        text += &format!("{result} (*check_{name}_{})({arguments}) = {name};\n", text.len());
    }
    text
}

#[test]
fn declarations_are_those_of_the_sites_mpi() {
    let directory = tempfile::tempdir().unwrap();
    let source: PathBuf = directory.path().join("check.c");
    std::fs::write(&source, program()).unwrap();
    // const is dropped in a few of the driver's types, which is the same to the ABI.
    let output = Command::new(family::COMPILER.0)
        .args(["-std=c11", "-Werror", "-Wno-error=discarded-qualifiers", "-c", "-o"])
        .arg(directory.path().join("check.o"))
        .arg(&source)
        .output()
        .unwrap_or_else(|e| panic!("{}: {e}: run tools/prepare test", family::COMPILER.0));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
