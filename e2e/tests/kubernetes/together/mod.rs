//! Tests that do not disturb each other.

mod addresses;
mod diagnosis;
mod generations;
mod halves;
mod hostile;
mod lifecycle;
mod mounts;
mod observe;
mod races;
mod restart;
mod rights;
mod waiting;
