//! Bearer tokens that Castra issues: `castra_agent_<43 characters><6 characters>`.
//!
//! The 43 characters are 32 random bytes in base 62, the 6 a checksum, so that a token that was cut
//! or mistyped is told apart from one that nobody issued, and so that secret scanners find tokens
//! without false alarms. The text is shown once; what is kept is its SHA-256.

use std::fmt;

use castra_core::Digest;
use zeroize::Zeroizing;

use crate::sha256;

/// What a token is good for; its prefix says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TokenKind {
    /// An agent calls the gate.
    Agent,
    /// An operator calls the operator API.
    Operator,
    /// Redeemed once for an operator token.
    Enrolment,
}

impl TokenKind {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::Agent, Self::Operator, Self::Enrolment];

    /// How a token of this kind begins.
    pub fn prefix(self) -> &'static str {
        match self {
            Self::Agent => "castra_agent_",
            Self::Operator => "castra_operator_",
            Self::Enrolment => "castra_enroll_",
        }
    }

    /// The word that the store uses.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Operator => "operator",
            Self::Enrolment => "enrolment",
        }
    }
}

impl fmt::Display for TokenKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A token in clear. It is wiped from memory when dropped, and never shown by `Debug`.
pub struct Token {
    kind: TokenKind,
    text: Zeroizing<String>,
}

impl Token {
    /// Makes a token from 32 random bytes.
    pub fn new(kind: TokenKind, random: [u8; 32]) -> Self {
        let random = Zeroizing::new(random);
        let mut text = Zeroizing::new(String::with_capacity(kind.prefix().len() + BODY_LENGTH));
        text.push_str(kind.prefix());
        push_base62(&mut text, &random[..], SECRET_LENGTH);
        let checksum = crc32(text.as_bytes());
        push_base62(&mut text, &checksum.to_be_bytes(), CHECKSUM_LENGTH);
        Self { kind, text }
    }

    /// The secret text. Only for handing it to its owner.
    pub fn expose(&self) -> &str {
        &self.text
    }

    /// What it is good for.
    pub fn kind(&self) -> TokenKind {
        self.kind
    }

    /// What is stored of it.
    pub fn hash(&self) -> TokenHash {
        TokenHash::of(&self.text)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({} {})", self.kind, self.hash().id())
    }
}

/// SHA-256 of a token's text: what is stored and looked up.
///
/// A fast hash is right here, unlike for passwords: the text carries 256 random bits, so there is
/// nothing to guess and a slow hash would only make every request slow. Looking up by the hash
/// also means that the time a lookup takes tells nothing about stored tokens: nobody can choose
/// the bits of a hash that are compared.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenHash(pub [u8; 32]);

impl TokenHash {
    /// Hashes the text of a token.
    pub fn of(text: &str) -> Self {
        Self(sha256(&[text.as_bytes()]).0)
    }

    /// The token's id: the first 12 hex digits. It names the token in lists and records.
    pub fn id(&self) -> String {
        let mut hex = Digest(self.0).to_hex();
        hex.truncate(12);
        hex
    }
}

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenHash({}…)", self.id())
    }
}

/// The kind of a text that has a token's prefix and length; none for anything else, which is then
/// not worth hashing.
pub fn kind_of(text: &str) -> Option<TokenKind> {
    TokenKind::ALL.into_iter().find(|kind| {
        text.strip_prefix(kind.prefix()).is_some_and(|body| body.len() == BODY_LENGTH && body.is_ascii())
    })
}

/// Whether the checksum holds. A token that is intact but unknown was issued elsewhere or was
/// deleted; one that is not intact was cut or mistyped. Costs more than the lookup, so it is only
/// asked once a lookup failed.
pub fn is_intact(text: &str) -> bool {
    let Some((signed, checksum)) =
        text.len().checked_sub(CHECKSUM_LENGTH).and_then(|at| text.split_at_checked(at))
    else {
        return false;
    };
    let mut expected = String::with_capacity(CHECKSUM_LENGTH);
    push_base62(&mut expected, &crc32(signed.as_bytes()).to_be_bytes(), CHECKSUM_LENGTH);
    kind_of(text).is_some() && checksum == expected
}

/// 62^43 > 2^256, so 43 digits hold 32 bytes.
const SECRET_LENGTH: usize = 43;
/// 62^6 > 2^32.
const CHECKSUM_LENGTH: usize = 6;
const BODY_LENGTH: usize = SECRET_LENGTH + CHECKSUM_LENGTH;
const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// Appends a big-endian number as exactly `digits` base 62 digits.
fn push_base62(out: &mut String, number: &[u8], digits: usize) {
    let mut number = Zeroizing::new(number.to_vec());
    let mut reversed = Zeroizing::new(Vec::with_capacity(digits));
    for _ in 0..digits {
        let mut rest = 0_usize;
        for byte in number.iter_mut() {
            let value = (rest << 8) | usize::from(*byte);
            *byte = (value / 62) as u8;
            rest = value % 62;
        }
        reversed.push(char::from(*BASE62.get(rest).unwrap_or(&b'0')));
    }
    out.extend(reversed.iter().rev());
}

/// CRC-32 as of IEEE 802.3 (reflected, polynomial 0xEDB88320).
fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 };
    !bytes.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), step))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn tokens_have_their_form() {
        for kind in TokenKind::ALL {
            let token = Token::new(kind, [255; 32]);
            assert_eq!(token.expose().len(), kind.prefix().len() + 49);
            assert_eq!(kind_of(token.expose()), Some(kind));
            assert!(is_intact(token.expose()));
            assert_eq!(token.hash().id().len(), 12);
        }
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926, "the check value of CRC-32/ISO-HDLC");
    }

    #[test]
    fn debug_hides_the_secret() {
        let token = Token::new(TokenKind::Agent, [7; 32]);
        let shown = format!("{token:?} {:?}", token.hash());
        let secret = token.expose().strip_prefix("castra_agent_").expect("prefix");
        assert!(!shown.contains(secret.get(..8).expect("long")), "{shown}");
    }

    #[test]
    fn other_texts_are_not_tokens() {
        let good = Token::new(TokenKind::Agent, [7; 32]).expose().to_owned();
        for bad in [
            "",
            "castra_agent_",
            "Bearer x",
            "eyJhbGciOiJFUzI1NiJ9.e30.x",
            &good[1..],
            &good[..good.len() - 1],
        ] {
            assert_eq!(kind_of(bad), None, "{bad}");
            assert!(!is_intact(bad), "{bad}");
        }
        let mistyped = good.replacen("castra_agent_1", "castra_agent_2", 1);
        assert_ne!(mistyped, good);
        assert_eq!(kind_of(&mistyped), Some(TokenKind::Agent));
        assert!(!is_intact(&mistyped));
    }

    proptest! {
        #[test]
        fn any_text_is_judged_without_panic(text in any::<String>()) {
            let _ = (kind_of(&text), is_intact(&text), TokenHash::of(&text).id());
            let prefixed = format!("castra_agent_{text}");
            let _ = (kind_of(&prefixed), is_intact(&prefixed));
        }

        #[test]
        fn different_bytes_make_different_tokens(a in any::<[u8; 32]>(), b in any::<[u8; 32]>()) {
            let (x, y) = (Token::new(TokenKind::Agent, a), Token::new(TokenKind::Agent, b));
            prop_assert_eq!(a == b, x.expose() == y.expose());
        }
    }
}
