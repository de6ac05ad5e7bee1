//! Tests that load the whole machine or disturb others, run one after the other.

mod many;
mod own_cluster;
