//! The decoders of `talea-vos` under a fuzzer (`make fuzz`); the same bodies run as property tests.
#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| talea_vos::store::fuzz::all(bytes));
