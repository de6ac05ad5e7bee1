//! Starting processes, hearing of their ends, and finding the ones that belong together.

pub(crate) mod family;
pub(crate) mod inherited;
mod keeper;
pub(crate) mod reaper;
pub(crate) mod spawn;
pub(crate) mod tree;

pub(crate) use family::Family;
pub(crate) use reaper::{Exit, Reaper, ended};
pub(crate) use spawn::{Launch, Started};
