//! Nobody passes the gate without a token, and no address, header or key makes it panic.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: (&str, &[u8], &[u8], &[u8])| {
    let (address, host, authorization, port) = input;
    stockade_agent::fuzzing::gate(address, host, authorization, port);
    stockade_agent::fuzzing::key(address);
});
