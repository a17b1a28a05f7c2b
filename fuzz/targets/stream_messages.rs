#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| castra_fuzz::stream(
    castra_protocol::model::Form::AnthropicMessages,
    data
));
