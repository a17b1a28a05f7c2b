//! Key sets of issuers (RFC 7517, 7518, 8037) and signatures under them.

use aws_lc_rs::signature::{
    self, ParsedPublicKey, RsaParameters, RsaPublicKeyComponents, VerificationAlgorithm,
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use rustls_pki_types::{SubjectPublicKeyInfoDer, pem::PemObject};
use serde::{Deserialize, Serialize};
use x509_parser::{
    oid_registry::OID_SIG_ED25519, prelude::FromDer, public_key::PublicKey, x509::SubjectPublicKeyInfo,
};

/// A signature algorithm (RFC 7518 section 3.1, RFC 8037). Symmetric ones and `none` are not
/// among them, so nothing can choose them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum Algorithm {
    #[serde(rename = "RS256")]
    Rs256,
    #[serde(rename = "RS384")]
    Rs384,
    #[serde(rename = "RS512")]
    Rs512,
    #[serde(rename = "PS256")]
    Ps256,
    #[serde(rename = "PS384")]
    Ps384,
    #[serde(rename = "PS512")]
    Ps512,
    #[serde(rename = "ES256")]
    Es256,
    #[serde(rename = "ES384")]
    Es384,
    /// Ed25519 only; `Ed25519` is its name in RFC 9864.
    #[serde(rename = "EdDSA", alias = "Ed25519")]
    EdDsa,
}

impl Algorithm {
    /// Those that count when an issuer's configuration names none.
    pub fn defaults() -> Vec<Self> {
        vec![Self::Rs256, Self::Ps256, Self::Es256, Self::Es384, Self::EdDsa]
    }

    /// Reads the value of `alg`.
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "RS256" => Self::Rs256,
            "RS384" => Self::Rs384,
            "RS512" => Self::Rs512,
            "PS256" => Self::Ps256,
            "PS384" => Self::Ps384,
            "PS512" => Self::Ps512,
            "ES256" => Self::Es256,
            "ES384" => Self::Es384,
            "EdDSA" | "Ed25519" => Self::EdDsa,
            _ => return None,
        })
    }

    fn rsa(self) -> Option<&'static RsaParameters> {
        Some(match self {
            Self::Rs256 => &signature::RSA_PKCS1_2048_8192_SHA256,
            Self::Rs384 => &signature::RSA_PKCS1_2048_8192_SHA384,
            Self::Rs512 => &signature::RSA_PKCS1_2048_8192_SHA512,
            Self::Ps256 => &signature::RSA_PSS_2048_8192_SHA256,
            Self::Ps384 => &signature::RSA_PSS_2048_8192_SHA384,
            Self::Ps512 => &signature::RSA_PSS_2048_8192_SHA512,
            Self::Es256 | Self::Es384 | Self::EdDsa => return None,
        })
    }
}

/// Why a key set cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JwksError {
    /// It is not a key set.
    #[error("the key set is not a JWKS document: {reason}")]
    Unreadable {
        /// What the parser says.
        reason: String,
    },
    /// More keys than any issuer needs.
    #[error("the key set has {found} keys, and {max} are the most that is taken")]
    TooMany {
        /// How many there are.
        found: usize,
        /// How many are taken.
        max: usize,
    },
    /// Nothing in it verifies signatures.
    #[error(
        "none of the {found} keys can be used: RSA from 2048 bits, P-256, P-384 and Ed25519 signing keys count"
    )]
    NoneUsable {
        /// How many there are.
        found: usize,
    },
}

/// The usable keys of an issuer; none by default, before they were fetched.
#[derive(Debug, Clone, Default)]
pub struct Jwks {
    keys: std::sync::Arc<[Key]>,
}

/// Why no signature was verified.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NoMatch {
    /// No key fits.
    Key,
    /// A key fits, and the signature is not of it.
    Signature,
}

impl Jwks {
    /// Most keys of one issuer.
    pub const KEYS_MAX: usize = 100;
    /// Longest document.
    pub const BYTES_MAX: usize = 256 << 10;

    /// Reads a JWKS document. Keys that are for something else (encryption, other curves,
    /// symmetric) or that publish their private half are passed over, as RFC 7517 section 5 asks.
    pub fn parse(bytes: &[u8]) -> Result<Self, JwksError> {
        if bytes.len() > Self::BYTES_MAX {
            let reason = format!("it has {} bytes, and {} are the most", bytes.len(), Self::BYTES_MAX);
            return Err(JwksError::Unreadable { reason });
        }
        let document: Document =
            serde_json::from_slice(bytes).map_err(|e| JwksError::Unreadable { reason: e.to_string() })?;
        let found = document.keys.len();
        if found > Self::KEYS_MAX {
            return Err(JwksError::TooMany { found, max: Self::KEYS_MAX });
        }
        let keys: Vec<Key> = document.keys.into_iter().filter_map(usable).collect();
        if keys.is_empty() { Err(JwksError::NoneUsable { found }) } else { Ok(Self { keys: keys.into() }) }
    }

    /// How many keys can be used.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there is none; never true of a parsed set.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Reads public keys in PEM (`BEGIN PUBLIC KEY`, RFC 5280 SubjectPublicKeyInfo). They have no id, so
    /// that a signature may name any.
    ///
    /// # Errors
    /// When there is none that verifies signatures.
    pub fn from_pem(pem: &[u8]) -> Result<Self, JwksError> {
        let unreadable = |reason: String| JwksError::Unreadable { reason };
        let mut keys = Vec::new();
        let mut found = 0;
        for item in SubjectPublicKeyInfoDer::pem_slice_iter(pem) {
            let der = item.map_err(|e| unreadable(format!("not PEM: {e}")))?;
            found += 1;
            if found > Self::KEYS_MAX {
                return Err(JwksError::TooMany { found, max: Self::KEYS_MAX });
            }
            keys.extend(of_info(der.as_ref()));
        }
        if keys.is_empty() { Err(JwksError::NoneUsable { found }) } else { Ok(Self { keys: keys.into() }) }
    }

    /// Whether a signature is of one of these keys. A key without an id is tried whatever `key_id` is;
    /// an algorithm that is not known here verifies nothing.
    pub fn verifies(&self, key_id: Option<&str>, algorithm: &str, signed: &[u8], signature: &[u8]) -> bool {
        let Some(algorithm) = Algorithm::from_name(algorithm) else { return false };
        let named = |key: &&Key| key_id.is_none() || key.id.is_none() || key.id.as_deref() == key_id;
        let mut fitting = self.keys.iter().filter(named).filter(|key| key.fits(algorithm));
        fitting.any(|key| key.verify(algorithm, signed, signature))
    }

    /// These keys and those.
    #[must_use]
    pub fn with(&self, other: &Self) -> Self {
        Self { keys: self.keys.iter().chain(&*other.keys).cloned().collect() }
    }

    /// Verifies a signature under the key with this id, or, for a token that names none, under the
    /// only key that fits the algorithm. Several keys without a way to choose are no choice.
    pub(super) fn verify(
        &self,
        key_id: Option<&str>,
        algorithm: Algorithm,
        signed: &[u8],
        signature: &[u8],
    ) -> Result<(), NoMatch> {
        let named = |key: &&Key| key_id.is_none() || key.id.as_deref() == key_id;
        let mut fitting = self.keys.iter().filter(named).filter(|key| key.fits(algorithm));
        let key = fitting.next().ok_or(NoMatch::Key)?;
        if fitting.next().is_some() {
            return Err(NoMatch::Key);
        }
        if key.verify(algorithm, signed, signature) { Ok(()) } else { Err(NoMatch::Signature) }
    }
}

#[derive(Debug, Clone)]
struct Key {
    id: Option<String>,
    /// The only algorithm that the issuer allows for it, if it says so.
    pinned: Option<Algorithm>,
    material: Material,
}

#[derive(Debug, Clone)]
enum Material {
    Rsa(RsaPublicKeyComponents<Vec<u8>>),
    /// A curve has one algorithm.
    Curve(Algorithm, ParsedPublicKey),
}

impl Key {
    fn fits(&self, algorithm: Algorithm) -> bool {
        let by_type = match &self.material {
            Material::Rsa(_) => algorithm.rsa().is_some(),
            Material::Curve(only, _) => *only == algorithm,
        };
        by_type && self.pinned.is_none_or(|pinned| pinned == algorithm)
    }

    fn verify(&self, algorithm: Algorithm, signed: &[u8], signature: &[u8]) -> bool {
        match (&self.material, algorithm.rsa()) {
            (Material::Rsa(key), Some(parameters)) => key.verify(parameters, signed, signature).is_ok(),
            (Material::Curve(_, key), None) => key.verify_sig(signed, signature).is_ok(),
            _ => false,
        }
    }
}

#[derive(Deserialize)]
struct Document {
    keys: Vec<Jwk>,
}

#[derive(Deserialize)]
struct Jwk {
    kty: String,
    #[serde(rename = "use")]
    purpose: Option<String>,
    key_ops: Option<Vec<String>>,
    alg: Option<String>,
    kid: Option<String>,
    crv: Option<String>,
    x: Option<String>,
    y: Option<String>,
    n: Option<String>,
    e: Option<String>,
    d: Option<serde::de::IgnoredAny>,
}

fn usable(jwk: Jwk) -> Option<Key> {
    let for_signatures = jwk.purpose.as_deref().is_none_or(|purpose| purpose == "sig")
        && jwk.key_ops.as_ref().is_none_or(|ops| ops.iter().any(|op| op == "verify"));
    if !for_signatures || jwk.d.is_some() {
        return None;
    }
    let pinned = match jwk.alg.as_deref() {
        Some(name) => Some(Algorithm::from_name(name)?),
        None => None,
    };
    let material = match (jwk.kty.as_str(), jwk.crv.as_deref()) {
        ("RSA", _) => rsa(bytes(jwk.n.as_deref()?)?, bytes(jwk.e.as_deref()?)?)?,
        ("EC", Some("P-256")) => curve(&jwk, Algorithm::Es256, 32, &signature::ECDSA_P256_SHA256_FIXED)?,
        ("EC", Some("P-384")) => curve(&jwk, Algorithm::Es384, 48, &signature::ECDSA_P384_SHA384_FIXED)?,
        ("OKP", Some("Ed25519")) => {
            let x = bytes(jwk.x.as_deref()?)?;
            let key = ParsedPublicKey::new(&signature::ED25519, x).ok()?;
            Material::Curve(Algorithm::EdDsa, key)
        }
        _ => return None,
    };
    Some(Key { id: jwk.kid, pinned, material })
}

/// The key of a SubjectPublicKeyInfo, if it verifies signatures.
fn of_info(der: &[u8]) -> Option<Key> {
    let (_, info) = SubjectPublicKeyInfo::from_der(der).ok()?;
    let point = &*info.subject_public_key.data;
    let on_curve = |algorithm, parameters: &'static dyn VerificationAlgorithm| {
        let key = ParsedPublicKey::new(parameters, point).ok()?;
        Some(Material::Curve(algorithm, key))
    };
    let material = match info.parsed().ok()? {
        PublicKey::RSA(key) => rsa(key.modulus.to_vec(), key.exponent.to_vec())?,
        PublicKey::EC(_) if point.len() == 65 => {
            on_curve(Algorithm::Es256, &signature::ECDSA_P256_SHA256_FIXED)?
        }
        PublicKey::EC(_) if point.len() == 97 => {
            on_curve(Algorithm::Es384, &signature::ECDSA_P384_SHA384_FIXED)?
        }
        _ if info.algorithm.algorithm == OID_SIG_ED25519 => on_curve(Algorithm::EdDsa, &signature::ED25519)?,
        _ => return None,
    };
    Some(Key { id: None, pinned: None, material })
}

fn rsa(n: Vec<u8>, e: Vec<u8>) -> Option<Material> {
    let (n, e) = (without_leading_zeros(n), without_leading_zeros(e));
    // 2048 to 8192 bits, as the verification demands too; here so that a short key is "not usable"
    // rather than a wrong signature.
    let bits = n.len().checked_mul(8)?.checked_sub(n.first()?.leading_zeros() as usize)?;
    let small_exponent = matches!(e.len(), 1..=4) && e.last()? & 1 == 1;
    ((2048..=8192).contains(&bits) && small_exponent).then(|| Material::Rsa(RsaPublicKeyComponents { n, e }))
}

fn curve(
    jwk: &Jwk,
    algorithm: Algorithm,
    coordinate_bytes: usize,
    parameters: &'static dyn VerificationAlgorithm,
) -> Option<Material> {
    let (x, y) = (bytes(jwk.x.as_deref()?)?, bytes(jwk.y.as_deref()?)?);
    // RFC 7518 section 6.2.1.2: coordinates have their full length.
    if x.len() != coordinate_bytes || y.len() != coordinate_bytes {
        return None;
    }
    // SEC 1 section 2.3.3, uncompressed; parsing checks that the point is on the curve.
    let point = [&[4][..], &x, &y].concat();
    ParsedPublicKey::new(parameters, point).ok().map(|key| Material::Curve(algorithm, key))
}

fn bytes(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).ok()
}

fn without_leading_zeros(bytes: Vec<u8>) -> Vec<u8> {
    bytes.into_iter().skip_while(|b| *b == 0).collect()
}
