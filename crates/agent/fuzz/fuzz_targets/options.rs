//! No command line and no environment makes the parser panic.
#![no_main]

libfuzzer_sys::fuzz_target!(|arguments: Vec<String>| {
    let first = arguments.first().cloned();
    let _ = stockade_agent::Options::parse(arguments, |_| first.clone());
});
