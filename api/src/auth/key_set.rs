//! The public keys that tokens are checked with, and the parsing of key sets (RFC 7517).

use super::AuthKeyError;
use aws_lc_rs::signature::RsaParameters;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{
    Algorithm, DecodingKey,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, KeyOperations, PublicKeyUse},
};
use serde::Deserialize;
use serde_json::Value;
use std::ops::RangeInclusive;

/// The accepted sizes of RSA keys. Shorter keys are broken; longer ones take too long to check.
const RSA_BITS: RangeInclusive<usize> = 2048..=8192;

/// A public key with its one algorithm.
#[derive(Clone)]
pub(super) struct TrustedKey {
    pub id: Option<String>,
    pub algorithm: Algorithm,
    pub key: DecodingKey,
}

impl TrustedKey {
    /// Parses a key in PEM: Ed25519 (`EdDSA`) or RSA (`RS256`).
    pub fn of_pem(pem: &[u8]) -> Result<Self, AuthKeyError> {
        if let Ok(key) = DecodingKey::from_ed_pem(pem) {
            return Ok(Self { id: None, algorithm: Algorithm::EdDSA, key });
        }
        let malformed = |what: &str| AuthKeyError::Malformed(format!("the public key ({what})"));
        let key = DecodingKey::from_rsa_pem(pem).map_err(|_| malformed("PEM, Ed25519 or RSA"))?;
        let der = key.try_get_as_bytes().map_err(|_| malformed("PEM, Ed25519 or RSA"))?;
        let bits = RsaParameters::public_modulus_len(der).ok();
        if !bits.is_some_and(|bits| RSA_BITS.contains(&(bits as usize))) {
            return Err(malformed("RSA needs 2048 to 8192 bits"));
        }
        Ok(Self { id: None, algorithm: Algorithm::RS256, key })
    }

    /// A key of a key set; `None` if it is not for signatures of a supported algorithm.
    fn of_jwk(jwk: &Jwk) -> Option<Self> {
        let common = &jwk.common;
        let signs = common.public_key_use.as_ref().is_none_or(|it| *it == PublicKeyUse::Signature)
            && common.key_operations.as_ref().is_none_or(|it| it.contains(&KeyOperations::Verify));
        let algorithm = match (&jwk.algorithm, common.key_algorithm) {
            (AlgorithmParameters::OctetKeyPair(pair), None | Some(KeyAlgorithm::EdDSA)) => {
                (pair.curve == EllipticCurve::Ed25519).then_some(Algorithm::EdDSA)
            }
            (AlgorithmParameters::RSA(rsa), None | Some(KeyAlgorithm::RS256)) => {
                RSA_BITS.contains(&bits(&rsa.n)?).then_some(Algorithm::RS256)
            }
            _ => None,
        };
        let algorithm = algorithm.filter(|_| signs)?;
        Some(Self { id: common.key_id.clone(), algorithm, key: DecodingKey::from_jwk(jwk).ok()? })
    }
}

/// The number of bits of a number in base64.
fn bits(number: &str) -> Option<usize> {
    let bytes = URL_SAFE_NO_PAD.decode(number).ok()?;
    let first = bytes.iter().position(|byte| *byte != 0)?;
    Some((bytes.len() - first) * 8 - bytes[first].leading_zeros() as usize)
}

/// The usable keys of a key set. Unknown keys are ignored, as RFC 7517 demands. If there are
/// several keys, those without an id are ignored, because no token can name them.
///
/// # Errors
/// If the key set is malformed or has no usable key.
pub(super) fn read_key_set(json: &[u8]) -> Result<Vec<TrustedKey>, AuthKeyError> {
    #[derive(Deserialize)]
    struct KeySet {
        keys: Vec<Value>,
    }
    let malformed = |what: &str| AuthKeyError::Malformed(format!("the key set ({what})"));
    let set: KeySet =
        serde_json::from_slice(json).map_err(|_| malformed("it is not valid JSON of a key set"))?;
    let read = |key| TrustedKey::of_jwk(&serde_json::from_value(key).ok()?);
    let mut keys: Vec<_> = set.keys.into_iter().filter_map(read).collect();
    if keys.len() > 1 {
        keys.retain(|key| key.id.is_some());
    }
    if keys.is_empty() {
        return Err(malformed("it has no EdDSA or RS256 key"));
    }
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn ed(id: &str) -> Value {
        let x = URL_SAFE_NO_PAD.encode([7; 32]);
        json!({ "kty": "OKP", "crv": "Ed25519", "x": x, "kid": id })
    }

    fn rsa(bits: usize) -> Value {
        let n = URL_SAFE_NO_PAD.encode(vec![0xff; bits / 8]);
        json!({ "kty": "RSA", "n": n, "e": "AQAB", "kid": "r" })
    }

    fn read(keys: &[Value]) -> Vec<String> {
        let set = json!({ "keys": keys }).to_string();
        let keys = read_key_set(set.as_bytes()).unwrap_or_default();
        keys.into_iter().filter_map(|key| key.id).collect()
    }

    fn with(mut key: Value, name: &str, value: Value) -> Value {
        key[name] = value;
        key
    }

    #[test]
    fn only_keys_of_supported_algorithms_count() {
        assert_eq!(read(&[ed("a"), rsa(2048)]), ["a", "r"]);
        assert_eq!(read(&[with(ed("a"), "use", json!("sig")), ed("b")]), ["a", "b"]);
        for other in [
            rsa(1024),
            rsa(16_384),
            json!({ "kty": "oct", "k": "c2VjcmV0", "kid": "o", "alg": "HS256" }),
            json!({ "kty": "EC", "crv": "P-256", "x": "AA", "y": "AA", "kid": "e" }),
            json!({ "kty": "future", "kid": "f" }),
            json!("no key"),
            with(ed("a"), "use", json!("enc")),
            with(ed("a"), "key_ops", json!(["sign"])),
            with(ed("a"), "alg", json!("HS256")),
            with(ed("a"), "crv", json!("X25519")),
            with(rsa(2048), "alg", json!("RS512")),
        ] {
            assert!(read(std::slice::from_ref(&other)).is_empty(), "{other}");
            assert_eq!(read(&[other, ed("good")]), ["good"], "the others still count");
        }
        for garbage in ["", "[]", "{}", r#"{"keys":7}"#, r#"{"keys":[]}"#, "<html>"] {
            assert!(read_key_set(garbage.as_bytes()).is_err(), "{garbage}");
        }
    }

    #[test]
    fn keys_without_an_id_are_ignored_beside_others() {
        let mut nameless = ed("a");
        nameless.as_object_mut().unwrap().remove("kid");
        let set = |keys: Value| read_key_set(json!({ "keys": keys }).to_string().as_bytes());
        assert_eq!(set(json!([nameless])).unwrap().len(), 1);
        assert_eq!(set(json!([nameless, ed("b")])).unwrap().len(), 1);
    }

    #[test]
    fn a_short_rsa_key_in_a_file_is_refused() {
        use aws_lc_rs::{rsa::KeySize, signature::KeyPair};
        let pair = aws_lc_rs::rsa::KeyPair::generate(KeySize::Rsa2048).unwrap();
        let pem = |der: &[u8]| {
            let text = base64::engine::general_purpose::STANDARD.encode(der);
            format!("-----BEGIN RSA PUBLIC KEY-----\n{text}\n-----END RSA PUBLIC KEY-----\n")
        };
        assert!(TrustedKey::of_pem(pem(pair.public_key().as_ref()).as_bytes()).is_ok());
        // 1,024 one bits, and the usual exponent.
        let mut short = vec![0x30, 0x81, 0x89, 0x02, 0x81, 0x81, 0x00];
        short.extend([0xff; 128]);
        short.extend([0x02, 0x03, 0x01, 0x00, 0x01]);
        assert!(TrustedKey::of_pem(pem(&short).as_bytes()).is_err());
        assert!(TrustedKey::of_pem(b"no key").is_err());
    }
}
