//! The decoders of `talea-posix` under a fuzzer (`make fuzz`); the same bodies run as property tests.
#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| talea_posix::fuzz::all(bytes));
