//! Container images written by ourselves: no registry, no Docker.
//!
//! [`layer`] turns files into a tar with nothing in it that differs between two runs, [`archive`]
//! wraps layers into an OCI archive that `ctr images import` takes, [`test_images`] says what is in
//! the images of the tests.

pub mod archive;
pub mod cli;
pub mod layer;
pub mod test_images;
