//! The one binary of Stockade.

fn main() {}
