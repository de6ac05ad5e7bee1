//! Developer tasks of Stockade, callable from each other: `main.rs` only parses.

pub mod cluster;
pub mod image;
pub mod paths;
pub mod progress;
pub mod run;
pub mod wait;
