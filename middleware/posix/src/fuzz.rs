//! Fuzz bodies of what comes from programs, other processes and the store: paths, hints, inodes, shared files. Shared by the
//! property tests and the fuzzer. Must never panic, whatever the bytes.

use crate::{Hints, Inode, TaleaPath};

/// Feeds `bytes` to every decoder.
pub fn all(bytes: &[u8]) {
    if let Ok(path) = TaleaPath::parse(bytes) {
        assert!(path.names.iter().all(|name| !name.is_empty() && !name.contains(&b'/') && name != b".."), "{path:?}");
    }
    let _ = TaleaPath::is_ours(bytes);
    let _ = Inode::decode(bytes);
    let _ = Hints::parse(&String::from_utf8_lossy(bytes));
    crate::file::blob::fuzz(bytes);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn fuzz_any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
            super::all(&bytes);
        }

        #[test]
        fn fuzz_blobs(mut bytes in prop::collection::vec(0u8..3, 1..256)) {
            bytes[0] = 2;
            super::all(&bytes);
        }

        #[test]
        fn fuzz_paths(text in "(/talea|talea:)?(/|run|\\.|\\.\\.|\\.talea|steps|snapshots|[0-9]{1,21}|é){0,12}") {
            super::all(text.as_bytes());
        }

        #[test]
        fn fuzz_hints(text in "((talea_|)(class|chunk_bytes|step|wait|epoch|striping_unit)=[S0-9kKMGX-]{0,22}\n){0,6}") {
            super::all(text.as_bytes());
        }
    }
}
