//! Real namespaces, made by the tests themselves: nothing of this machine's own network is touched.

mod isolated;
mod lifecycle;
mod open;
pub(in crate::network) mod world;

use super::*;

pub(in crate::network) fn mk_options(machine: &str) -> NetworkOptions {
    NetworkOptions { machine: machine.to_owned(), subnet: None, default_mode: None, ready: 4 }
}

fn mk_hole(text: &str, port: Option<u16>) -> Hole {
    let (first, prefix) = text.split_once('/').unwrap();
    Hole { first: first.parse().unwrap(), prefix: prefix.parse().unwrap(), port }
}
