#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| talea_vos::store::fuzz::all(bytes));
