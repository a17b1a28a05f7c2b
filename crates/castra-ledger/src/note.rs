//! C2SP signed-note: text signed by named Ed25519 keys (signature type 0x01), and the textual form
//! of the keys that verify it (`name+hash+base64`). Signatures by keys that nobody asked for,
//! witnesses' among them, are ignored as the specification says.

use std::{fmt, str::FromStr};

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use base64::{Engine, engine::general_purpose::STANDARD};

use crate::merkle;

/// Bytes of a note. Sixteen signatures, which is what a verifier has to accept, fit even when each
/// is a post-quantum one of 5 kB.
pub const NOTE_BYTES_MAX: usize = 128 << 10;
/// Bytes of a key's name; a name is a log's address without the scheme.
pub const NAME_BYTES_MAX: usize = 256;

const SIGNATURES_MAX: usize = 64;
const ED25519_TYPE: u8 = 0x01;
const SIGNATURE_START: &str = "\u{2014} ";

/// What is wrong with a note or a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// A name that a key cannot have.
    #[error(
        "{name:?} cannot name a log key: use 1 to {NAME_BYTES_MAX} bytes without spaces, '+' or control characters, such as gate.example/log"
    )]
    Name {
        /// The name, shortened.
        name: String,
    },
    /// Text that is not a verifier key.
    #[error("this is not a verifier key: {why}. Expected name+hash+base64, as `castra log key` prints it")]
    VerifierKey {
        /// Which part.
        why: &'static str,
    },
    /// Text that cannot be signed as a note.
    #[error("this text cannot be signed as a note: {why}")]
    Unsignable {
        /// Which rule.
        why: &'static str,
    },
    /// Bytes that are not a note.
    #[error("this is not a signed note: {why}")]
    Malformed {
        /// Which rule.
        why: &'static str,
    },
    /// A known key's signature is false.
    #[error(
        "the signature of {key} is false: the text was changed after it was signed, or another key signed it"
    )]
    FalseSignature {
        /// The key's name.
        key: String,
    },
    /// No known key signed.
    #[error("none of the given keys signed this; it is signed by {}", signed_by(signers))]
    NoKnownSignature {
        /// The names on the signature lines.
        signers: Vec<String>,
    },
    /// The seed is not good for a key.
    #[error("the signing key cannot be used; restore it from a backup")]
    Key,
}

fn signed_by(names: &[String]) -> String {
    let shown: Vec<_> = names.iter().take(4).map(|name| format!("{name:?}")).collect();
    shown.join(", ")
}

/// The public half of a note key, with the name that it signs under.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifierKey {
    name: String,
    id: u32,
    public: [u8; 32],
}

impl VerifierKey {
    fn new(name: &str, public: [u8; 32]) -> Result<Self, NoteError> {
        if !is_name(name) {
            return Err(NoteError::Name { name: name.chars().take(80).collect() });
        }
        let digest = merkle::hash(&[name.as_bytes(), b"\n", &[ED25519_TYPE], &public]);
        let id = digest.0.first_chunk().map_or(0, |first| u32::from_be_bytes(*first));
        Ok(Self { name: name.to_owned(), id, public })
    }

    /// The key's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The key's id: with the name it says which key made a signature.
    pub fn id(&self) -> u32 {
        self.id
    }

    fn verifies(&self, text: &str, signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, self.public).verify(text.as_bytes(), signature).is_ok()
    }
}

impl fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = [&[ED25519_TYPE], &self.public[..]].concat();
        write!(f, "{}+{:08x}+{}", self.name, self.id, STANDARD.encode(key))
    }
}

impl FromStr for VerifierKey {
    type Err = NoteError;

    fn from_str(text: &str) -> Result<Self, NoteError> {
        let bad = |why| NoteError::VerifierKey { why };
        // Base64 may have a '+' of its own, a name and an id cannot.
        let mut parts = text.splitn(3, '+');
        let (Some(name), Some(id), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(bad("it has fewer than three parts"));
        };
        let hex = id.len() == 8 && id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let id =
            u32::from_str_radix(id, 16).ok().filter(|_| hex).ok_or(bad("its hash is not 8 hex digits"))?;
        if key.len() > 64 {
            return Err(bad("its key has the wrong length"));
        }
        let key = STANDARD.decode(key).map_err(|_| bad("its last part is not base64"))?;
        let public = match key.split_first() {
            Some((&ED25519_TYPE, public)) => {
                public.try_into().map_err(|_| bad("its key has the wrong length"))?
            }
            _ => return Err(bad("its key is not of type 1 (Ed25519)")),
        };
        let key = Self::new(name, public)?;
        if key.id == id { Ok(key) } else { Err(bad("its hash does not fit its name and key")) }
    }
}

/// A key that signs notes.
pub struct Signer {
    pair: Ed25519KeyPair,
    key: VerifierKey,
}

impl Signer {
    /// Makes the key from its 32 secret bytes. `name` is what it signs under: for a log, its origin.
    ///
    /// # Errors
    /// When the name has spaces, a plus sign or control characters.
    pub fn from_seed(name: &str, seed: &[u8; 32]) -> Result<Self, NoteError> {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).map_err(|_| NoteError::Key)?;
        let public = pair.public_key().as_ref().try_into().map_err(|_| NoteError::Key)?;
        Ok(Self { pair, key: VerifierKey::new(name, public)? })
    }

    /// The name that it signs under.
    pub fn name(&self) -> &str {
        &self.key.name
    }

    /// What others verify its signatures with.
    pub fn verifier_key(&self) -> &VerifierKey {
        &self.key
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signer({})", self.key)
    }
}

/// Signs `text`, which ends in a newline, and gives the whole note.
///
/// # Errors
/// When the text is not one that a note can hold.
pub fn sign(text: &str, signer: &Signer) -> Result<String, NoteError> {
    let bad = |why| NoteError::Unsignable { why };
    if !text.ends_with('\n') {
        return Err(bad("it does not end with a newline"));
    }
    if has_control_characters(text) {
        return Err(bad("it has control characters"));
    }
    if text.len() > NOTE_BYTES_MAX / 2 {
        return Err(bad("it is too long"));
    }
    let signature = signer.pair.sign(text.as_bytes());
    let line = [&signer.key.id.to_be_bytes(), signature.as_ref()].concat();
    Ok(format!("{text}\n{SIGNATURE_START}{} {}\n", signer.key.name, STANDARD.encode(line)))
}

/// A note that at least one of the given keys signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened<'a> {
    /// The text that was signed, with its last newline.
    pub text: &'a str,
    /// The keys that signed it.
    pub signers: Vec<VerifierKey>,
}

/// Reads a note and checks the signatures of `keys`.
///
/// # Errors
/// When it is malformed, when a known key's signature is false, or when no known key signed it.
pub fn open<'a>(note: &'a [u8], keys: &[VerifierKey]) -> Result<Opened<'a>, NoteError> {
    let bad = |why| NoteError::Malformed { why };
    if note.len() > NOTE_BYTES_MAX {
        return Err(bad("it is too long"));
    }
    let note = std::str::from_utf8(note).map_err(|_| bad("it is not UTF-8"))?;
    if has_control_characters(note) {
        return Err(bad("it has control characters"));
    }
    let end = note.rfind("\n\n").ok_or(bad("it has no blank line before its signatures"))?;
    let (text, signatures) = (note.get(..=end).unwrap_or_default(), note.get(end + 2..).unwrap_or_default());
    let lines = signatures.strip_suffix('\n').ok_or(bad("its last line does not end"))?;
    if lines.split('\n').count() > SIGNATURES_MAX {
        return Err(bad("it has too many signatures"));
    }
    let (mut signers, mut names) = (Vec::<VerifierKey>::new(), Vec::new());
    for line in lines.split('\n') {
        let (name, id, signature) = signature_line(line).ok_or(bad("a signature line is not one"))?;
        names.push(name.to_owned());
        let Some(key) = keys.iter().find(|key| key.name == name && key.id == id) else { continue };
        if !key.verifies(text, &signature) {
            return Err(NoteError::FalseSignature { key: name.to_owned() });
        }
        if !signers.contains(key) {
            signers.push(key.clone());
        }
    }
    if signers.is_empty() {
        return Err(NoteError::NoKnownSignature { signers: names });
    }
    Ok(Opened { text, signers })
}

fn signature_line(line: &str) -> Option<(&str, u32, Vec<u8>)> {
    let (name, signature) = line.strip_prefix(SIGNATURE_START)?.split_once(' ')?;
    let signature = STANDARD.decode(signature).ok()?;
    let (id, signature) = signature.split_first_chunk()?;
    let good = is_name(name) && !signature.is_empty();
    good.then(|| (name, u32::from_be_bytes(*id), signature.to_vec()))
}

fn is_name(name: &str) -> bool {
    let length = (1..=NAME_BYTES_MAX).contains(&name.len());
    length && !name.chars().any(|c| c.is_whitespace() || c.is_control() || c == '+')
}

fn has_control_characters(text: &str) -> bool {
    text.bytes().any(|b| b < 0x20 && b != b'\n')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    // The vectors of golang.org/x/mod/sumdb/note and of c2sp.org/signed-note.
    const PETER: &str = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
    const PETER_SEED: &str = "AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz";
    const PETER_TEXT: &str = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n";
    const PETER_LINE: &str = "\u{2014} PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";
    const EXAMPLE: &str = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k";
    const EXAMPLE_NOTE: &str = "This is an example message.\n\n\u{2014} example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n";

    fn peter() -> (Signer, VerifierKey) {
        let seed = STANDARD.decode(PETER_SEED).expect("base64")[1..].try_into().expect("32 bytes");
        (Signer::from_seed("PeterNeumann", &seed).expect("key"), PETER.parse().expect("key"))
    }

    #[test]
    fn other_peoples_vectors() {
        let (signer, key) = peter();
        assert_eq!(signer.verifier_key(), &key);
        assert_eq!(key.to_string(), PETER);
        let note = format!("{PETER_TEXT}\n{PETER_LINE}");
        assert_eq!(sign(PETER_TEXT, &signer), Ok(note.clone()));
        assert_eq!(open(note.as_bytes(), std::slice::from_ref(&key)).expect("opens").text, PETER_TEXT);

        let example: VerifierKey = EXAMPLE.parse().expect("key");
        assert_eq!(
            open(EXAMPLE_NOTE.as_bytes(), std::slice::from_ref(&example)).expect("opens").signers,
            [example]
        );
    }

    #[test]
    fn unknown_signatures_are_ignored_and_false_ones_are_not() {
        let (_, key) = peter();
        let keys = std::slice::from_ref(&key);
        let unknown = EXAMPLE_NOTE.rsplit('\n').nth(1).expect("line");
        let both = format!("{PETER_TEXT}\n{unknown}\n{PETER_LINE}");
        assert_eq!(open(both.as_bytes(), keys).expect("opens").signers, keys);
        let only = format!("{PETER_TEXT}\n{unknown}\n");
        assert!(matches!(open(only.as_bytes(), keys), Err(NoteError::NoKnownSignature { .. })));
        let changed = format!("{PETER_TEXT}\n{PETER_LINE}").replace("problem is", "problem was");
        assert!(matches!(open(changed.as_bytes(), keys), Err(NoteError::FalseSignature { .. })));
    }

    #[test]
    fn malformed_notes_are_refused() {
        let (_, key) = peter();
        let good = format!("{PETER_TEXT}\n{PETER_LINE}");
        for bad in [
            "".to_owned(),
            PETER_TEXT.to_owned(),
            good.trim_end().to_owned(),
            good.replace("\u{2014} ", "- "),
            good.replace('\n', "\r\n"),
            good.replace("PeterNeumann x", "Peter+Neumann x"),
            good.replace("PeterNeumann x", "PeterNeumann  x"),
            good.replace("AM=\n", "AM\n"),
            format!("{good}\n"),
            format!("{PETER_TEXT}\n{}", PETER_LINE.repeat(65)),
            format!("{}\n{PETER_LINE}", "x\n".repeat(NOTE_BYTES_MAX / 2)),
        ] {
            let opened = open(bad.as_bytes(), std::slice::from_ref(&key));
            assert!(matches!(opened, Err(NoteError::Malformed { .. })), "{bad:.60}: {opened:?}");
        }
    }

    #[test]
    fn mangled_keys_are_refused() {
        for end in 0..PETER.len() {
            assert!(PETER[..end].parse::<VerifierKey>().is_err());
            assert!(PETER[end + 1..].parse::<VerifierKey>().is_err());
        }
        for (at, byte) in PETER.bytes().enumerate() {
            let mut changed = PETER.as_bytes().to_vec();
            changed[at] = byte + 1;
            assert!(std::str::from_utf8(&changed).expect("ascii").parse::<VerifierKey>().is_err(), "{at}");
        }
        assert!(Signer::from_seed("two words", &[1; 32]).is_err());
        assert!(Signer::from_seed("", &[1; 32]).is_err());
        assert!(!format!("{:?}", peter().0).contains("AYEKFAL"));
    }

    proptest! {
        #[test]
        fn what_is_signed_opens(lines in proptest::collection::vec("[^\\p{Cc}]{0,20}", 1..5), seed in any::<[u8; 32]>()) {
            let signer = Signer::from_seed("log.example/a", &seed).expect("key");
            let text = lines.join("\n") + "\n";
            let note = sign(&text, &signer).expect("signs");
            let opened = open(note.as_bytes(), &[signer.verifier_key().clone()]).expect("opens");
            prop_assert_eq!(opened.text, text);
        }

        #[test]
        fn a_flipped_bit_is_noticed(at in any::<u16>(), bit in 0_u32..8) {
            let (_, key) = peter();
            let mut note = format!("{PETER_TEXT}\n{PETER_LINE}").into_bytes();
            let at = usize::from(at) % note.len();
            note[at] ^= 1 << bit;
            prop_assert!(open(&note, &[key]).is_err());
        }
    }
}
