//! One kind of token: a JWT in the compact form, signed with RS256 (RFC 7515, 7519), with an expiry.
//!
//! The algorithm is ours, not the token's: a header that names another is refused before anything
//! is computed, so neither `none` nor a secret made of the public key gets anywhere.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::Value;

use super::key::TokenKey;

/// Longer than any token that is meant for a header.
const LONGEST: usize = 16 * 1024;
/// How far the clocks of issuer and sandbox may differ.
const LEEWAY: Duration = Duration::from_secs(30);

/// Why a token is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum TokenError {
    #[error("the token is not a signed JWT of three parts")]
    Form,
    #[error("the token is not signed with RS256")]
    Algorithm,
    #[error("the token's header names an extension that is not known")]
    Critical,
    #[error("the token's signature is not that of this sandbox's key")]
    Signature,
    #[error("the token's claims cannot be read: exp is required, exp and nbf are numbers of seconds")]
    Claims,
    #[error("the token has expired")]
    Expired,
    #[error("the token is not valid yet")]
    NotYet,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    crit: Option<Value>,
}

#[derive(Deserialize)]
struct Claims {
    exp: f64,
    nbf: Option<f64>,
}

impl TokenKey {
    /// Accepts a token that this key signed and whose time has come and not passed.
    pub(super) fn check(&self, token: &str, now: SystemTime) -> Result<(), TokenError> {
        if token.len() > LONGEST {
            return Err(TokenError::Form);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(TokenError::Form)?;
        let (header, claims) = signed.split_once('.').ok_or(TokenError::Form)?;
        let header: Header = part(header).ok_or(TokenError::Form)?;
        if header.alg != "RS256" {
            return Err(TokenError::Algorithm);
        }
        if header.crit.is_some() {
            return Err(TokenError::Critical);
        }
        let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| TokenError::Form)?;
        if !self.verifies(signed.as_bytes(), &signature) {
            return Err(TokenError::Signature);
        }
        part::<Claims>(claims).ok_or(TokenError::Claims)?.check(now)
    }
}

impl Claims {
    fn check(&self, now: SystemTime) -> Result<(), TokenError> {
        // A clock before 1970 is wrong, and with it every comparison.
        let now = now.duration_since(UNIX_EPOCH).map_err(|_| TokenError::NotYet)?.as_secs_f64();
        let leeway = LEEWAY.as_secs_f64();
        if self.exp + leeway <= now {
            return Err(TokenError::Expired);
        }
        if self.nbf.is_some_and(|nbf| nbf - leeway > now) {
            return Err(TokenError::NotYet);
        }
        Ok(())
    }
}

fn part<T: for<'a> Deserialize<'a>>(encoded: &str) -> Option<T> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(encoded).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::super::testing::{OTHER_PEM, PEM, sign, sign_parts};
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    const NOW: u64 = 1_800_000_000;

    fn verdict(token: &str) -> Result<(), TokenError> {
        TokenKey::parse(PEM).unwrap().check(token, UNIX_EPOCH + Duration::from_secs(NOW))
    }

    #[test]
    fn a_token_of_the_key_is_accepted_until_it_expires() {
        for (claims, expect) in [
            (json!({ "exp": NOW + 60 }), Ok(())),
            (json!({ "exp": NOW - 29, "sub": "x", "nbf": NOW + 29 }), Ok(())),
            (json!({ "exp": 1_800_000_000.5 }), Ok(())),
            (json!({ "exp": NOW - 30 }), Err(TokenError::Expired)),
            (json!({ "exp": 0 }), Err(TokenError::Expired)),
            (json!({ "exp": -1e308 }), Err(TokenError::Expired)),
            (json!({ "exp": NOW + 60, "nbf": NOW + 31 }), Err(TokenError::NotYet)),
            (json!({ "exp": "1900000000" }), Err(TokenError::Claims)),
            (json!({ "exp": NOW + 60, "nbf": "0" }), Err(TokenError::Claims)),
            (json!({ "exp": null }), Err(TokenError::Claims)),
            (json!({}), Err(TokenError::Claims)),
            (json!([]), Err(TokenError::Claims)),
        ] {
            assert_eq!(verdict(&sign(&claims)), expect, "{claims}");
        }
    }

    #[test]
    fn no_other_algorithm_is_accepted() {
        let claims = json!({ "exp": NOW + 60 });
        for alg in ["none", "None", "HS256", "RS384", "PS256", "ES256", "rs256", ""] {
            assert_eq!(
                verdict(&sign_parts(&json!({ "alg": alg }), &claims)),
                Err(TokenError::Algorithm),
                "{alg}"
            );
        }
        // The classic confusion: the public key as the secret of an HMAC.
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, PEM.as_bytes());
        let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        for alg in ["HS256", "RS256"] {
            let signed = format!("{}.{}", encode(&json!({ "alg": alg })), encode(&claims));
            let signature = URL_SAFE_NO_PAD.encode(ring::hmac::sign(&key, signed.as_bytes()));
            assert!(verdict(&format!("{signed}.{signature}")).is_err(), "{alg}");
        }
        let unsigned = format!("{}.{}.", encode(&json!({ "alg": "none" })), encode(&claims));
        assert_eq!(verdict(&unsigned), Err(TokenError::Algorithm));
        let twice =
            format!("{}.{}.", URL_SAFE_NO_PAD.encode(r#"{"alg":"none","alg":"RS256"}"#), encode(&claims));
        assert_eq!(verdict(&twice), Err(TokenError::Form));
        let critical = sign_parts(&json!({ "alg": "RS256", "crit": ["b64"], "b64": false }), &claims);
        assert_eq!(verdict(&critical), Err(TokenError::Critical));
    }

    #[test]
    fn a_changed_or_foreign_token_is_refused() {
        let token = sign(&json!({ "exp": NOW + 60 }));
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let later = URL_SAFE_NO_PAD.encode(json!({ "exp": NOW + 600 }).to_string());
        let moved = format!("{}.{later}.{signature}", signed.split_once('.').unwrap().0);
        assert_eq!(verdict(&moved), Err(TokenError::Signature));
        assert_eq!(verdict(&format!("{signed}.")), Err(TokenError::Signature));
        assert_eq!(verdict(&format!("{signed}.AAAA")), Err(TokenError::Signature));
        let other = TokenKey::parse(OTHER_PEM).unwrap();
        assert_eq!(other.check(&token, UNIX_EPOCH + Duration::from_secs(NOW)), Err(TokenError::Signature));
        for token in
            ["", ".", "..", "a.b.c", signed, &format!("{token}="), &format!("{token}.x"), &"a".repeat(20_000)]
        {
            assert_eq!(verdict(token), Err(TokenError::Form), "{token}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics_or_passes(token in "\\PC{0,60}(\\.\\PC{0,30}){0,3}") {
            prop_assert!(verdict(&token).is_err());
        }
    }
}
