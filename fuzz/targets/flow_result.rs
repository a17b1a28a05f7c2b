#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| castra_fuzz::flow_result(data));
