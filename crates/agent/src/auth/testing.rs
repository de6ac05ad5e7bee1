//! Keys and tokens for tests.

pub(crate) const PEM: &str = include_str!("../../tests/keys/public.pem");
pub(crate) const OTHER_PEM: &str = include_str!("../../tests/keys/other.pem");
pub(crate) const SHORT_PEM: &str = include_str!("../../tests/keys/short.pem");
pub(crate) const EC_PEM: &str = include_str!("../../tests/keys/elliptic.pem");

#[path = "../../tests/common/token.rs"]
mod signing;

pub(crate) use signing::{sign, sign_parts};
