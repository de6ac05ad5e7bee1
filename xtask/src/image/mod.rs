//! Container images written by ourselves: no registry, no Docker.
//!
//! [`layer`] turns files into a tar with nothing in it that differs between two runs, [`archive`]
//! wraps layers into an OCI archive that `ctr images import` takes, [`test_images`] and
//! [`sandbox_images`] say what is in the images of the tests, and [`root`] makes the
//! Debian in them.

pub mod archive;
pub mod cli;
pub mod debian;
pub mod layer;
pub mod root;
pub mod sandbox_images;
pub mod test_images;
