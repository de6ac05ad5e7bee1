//! The program of the test sandbox image.

fn main() {}
