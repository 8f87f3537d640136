#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| talea_wire::fuzz::all(bytes));
