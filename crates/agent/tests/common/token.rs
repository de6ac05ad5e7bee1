//! Makes tokens, with a key that is in the repository and therefore good for tests only.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, reason = "shared by tests that use parts of it")]

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use serde_json::{Value, json};

const KEY: &[u8] = include_bytes!("../keys/test-only.pkcs8.der");

/// A token with these claims.
pub fn sign(claims: &Value) -> String {
    sign_parts(&json!({ "alg": "RS256", "typ": "JWT" }), claims)
}

/// A token with this header, signed with RS256 whatever the header says.
pub fn sign_parts(header: &Value, claims: &Value) -> String {
    let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", encode(header), encode(claims));
    let key = RsaKeyPair::from_pkcs8(KEY).unwrap();
    let mut signature = vec![0; key.public().modulus_len()];
    key.sign(&RSA_PKCS1_SHA256, &ring::rand::SystemRandom::new(), signed.as_bytes(), &mut signature).unwrap();
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}
