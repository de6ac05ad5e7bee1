//! No body makes the reading of a JSON route's request panic.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Some((route, body)) = bytes.split_first() {
        stockade_agent::fuzzing::request(*route, body);
    }
});
