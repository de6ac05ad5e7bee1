//! Whatever a program prints, the text left is free of control characters and not longer than it was.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let text = stockade_agent::clean(bytes);
    assert!(text.len() <= bytes.len() + 1);
    assert!(text.iter().all(|byte| matches!(byte, b'\n' | b'\t' | 0x20..=0x7E | 0x80..)));
});
