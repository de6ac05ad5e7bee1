//! Developer tasks of Stockade, callable from each other: `main.rs` only parses.

pub mod bench;
pub mod cargo;
pub mod cluster;
pub mod dist;
pub mod elf;
pub mod image;
pub mod machine;
pub mod openapi;
pub mod paths;
pub mod progress;
pub mod python;
pub mod run;
pub mod rust_target;
pub mod test;
pub mod tidy;
pub mod wait;
