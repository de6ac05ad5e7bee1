//! The public key that tokens are checked with: an RSA key as PEM, or as base64 of PEM or DER.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::signature::{RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents};

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
/// `AlgorithmIdentifier` of rsaEncryption (RFC 3279): the object id 1.2.840.113549.1.1.1 and NULL.
const RSA_ENCRYPTION: &[u8] = &[6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1, 5, 0];
/// Bytes of the shortest and longest modulus that signatures are checked with: 2048 and 8192 bits.
const MODULUS: std::ops::RangeInclusive<usize> = 256..=1024;
const PUBLIC_KEY: &str = "PUBLIC KEY";
const RSA_PUBLIC_KEY: &str = "RSA PUBLIC KEY";

/// An RSA public key of 2048 to 8192 bits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenKey {
    modulus: Vec<u8>,
    exponent: Vec<u8>,
}

impl TokenKey {
    /// Reads a key in any of the notations: PEM, base64 of PEM, base64 of DER.
    ///
    /// # Errors
    /// What is wrong with it, as the end of a sentence.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        const NEITHER: &str = "is neither an RSA public key as PEM nor base64 of one";
        let text = text.trim();
        if text.starts_with("-----") {
            return Self::from_pem(text);
        }
        let decoded = decode(text).ok_or(NEITHER)?;
        match std::str::from_utf8(&decoded) {
            Ok(pem) if pem.trim_start().starts_with("-----") => Self::from_pem(pem.trim()),
            _ => Self::from_spki(&decoded).ok_or(NEITHER)?.checked(),
        }
    }

    fn from_pem(pem: &str) -> Result<Self, &'static str> {
        let (label, body) = pem
            .strip_prefix("-----BEGIN ")
            .and_then(|rest| rest.split_once("-----"))
            .ok_or("begins like PEM and is none")?;
        let (body, _) = body
            .split_once(&format!("-----END {label}-----"))
            .ok_or("is PEM without its end; newlines may have been lost: give it as base64")?;
        let der = decode(body).ok_or("is PEM around something that is not base64")?;
        let key = match label {
            PUBLIC_KEY => Self::from_spki(&der),
            RSA_PUBLIC_KEY => Self::from_pkcs1(&der),
            _ => return Err("is PEM of something else than a public key"),
        };
        key.ok_or("is not an RSA public key; only RS256 tokens are checked")?.checked()
    }

    /// `SubjectPublicKeyInfo` (RFC 5280).
    fn from_spki(der: &[u8]) -> Option<Self> {
        let body = only(der, SEQUENCE)?;
        let (algorithm, rest) = element(body, SEQUENCE)?;
        let bits = only(rest, BIT_STRING)?;
        let key = bits.strip_prefix(&[0])?;
        if algorithm == RSA_ENCRYPTION { Self::from_pkcs1(key) } else { None }
    }

    /// `RSAPublicKey` (RFC 8017).
    fn from_pkcs1(der: &[u8]) -> Option<Self> {
        let (modulus, rest) = element(only(der, SEQUENCE)?, INTEGER)?;
        let exponent = only(rest, INTEGER)?;
        Some(Self { modulus: unsigned(modulus)?, exponent: unsigned(exponent)? })
    }

    fn checked(self) -> Result<Self, &'static str> {
        if MODULUS.contains(&self.modulus.len()) {
            Ok(self)
        } else {
            Err("is an RSA key with fewer than 2048 or more than 8192 bits")
        }
    }

    /// Whether `signature` is this key's RS256 signature of `message`.
    pub(super) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        let components = RsaPublicKeyComponents { n: &self.modulus, e: &self.exponent };
        components.verify(&RSA_PKCS1_2048_8192_SHA256, message, signature).is_ok()
    }
}

fn decode(text: &str) -> Option<Vec<u8>> {
    let plain: String = text.split_ascii_whitespace().collect();
    STANDARD.decode(plain).ok()
}

/// The content of the first DER element, which has to have `tag`, and what follows it.
fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&found, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        // Two bytes of length are more than any key that is taken has.
        0x81 | 0x82 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    (found == tag).then_some((content, rest))
}

fn only(der: &[u8], tag: u8) -> Option<&[u8]> {
    element(der, tag).filter(|(_, rest)| rest.is_empty()).map(|(content, _)| content)
}

/// The bytes of a positive INTEGER without the zero that keeps it positive.
fn unsigned(bytes: &[u8]) -> Option<Vec<u8>> {
    let bytes = bytes.strip_prefix(&[0]).unwrap_or(bytes);
    bytes.first().filter(|byte| **byte != 0).map(|_| bytes.to_vec())
}

#[cfg(test)]
mod tests {
    use super::super::testing::{EC_PEM, OTHER_PEM, PEM, SHORT_PEM};
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_key_is_the_same_in_every_notation() {
        let key = TokenKey::parse(PEM).unwrap();
        let body: String = PEM.lines().filter(|line| !line.starts_with('-')).collect();
        let der = STANDARD.decode(&body).unwrap();
        let bits = only(element(only(&der, SEQUENCE).unwrap(), SEQUENCE).unwrap().1, BIT_STRING).unwrap();
        let pkcs1 = format!(
            "-----BEGIN {RSA_PUBLIC_KEY}-----\n{}\n-----END {RSA_PUBLIC_KEY}-----",
            STANDARD.encode(&bits[1..])
        );
        for same in [STANDARD.encode(PEM), body, pkcs1, format!("\n{PEM}\n")] {
            assert_eq!(TokenKey::parse(&same).as_ref(), Ok(&key), "{same}");
        }
        assert_ne!(TokenKey::parse(OTHER_PEM), Ok(key));
    }

    #[test]
    fn what_is_no_usable_key_is_refused_with_the_reason() {
        for (text, expect) in [
            ("secret", "neither"),
            ("-----BEGIN PUBLIC KEY-----", "without its end"),
            ("-----BEGIN", "and is none"),
            ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----", "something else"),
            ("-----BEGIN PUBLIC KEY-----\n!\n-----END PUBLIC KEY-----", "not base64"),
            (EC_PEM, "not an RSA public key"),
            (SHORT_PEM, "fewer than 2048"),
        ] {
            let problem = TokenKey::parse(text).unwrap_err();
            assert!(problem.contains(expect), "{text}: {problem}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = TokenKey::from_spki(&bytes);
            let _ = TokenKey::parse(&STANDARD.encode(&bytes));
        }
    }
}
