//! A form means the same in whatever pieces it arrives, and never holds more than was sent.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: (u8, &[u8])| {
    let (piece, body) = input;
    let length = stockade_agent::fuzzing::multipart("b", body, usize::from(piece));
    assert!(length <= body.len());
    assert_eq!(length, stockade_agent::fuzzing::multipart("b", body, body.len()));
});
