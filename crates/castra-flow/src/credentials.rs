//! What looks like a credential, by what stands next to it.

use crate::text::is_stop;

/// Words by which credentials stand.
fn strong_word(word: &str) -> Option<&'static str> {
    Some(match word {
        "password" | "passwords" | "passwd" | "pwd" => "password",
        "passcode" | "passcodes" => "passcode",
        "passphrase" | "passphrases" => "passphrase",
        "pin" | "pins" => "pin",
        "otp" | "2fa" | "mfa" => "otp",
        "secret" | "secrets" => "secret",
        "cvv" | "cvc" => "cvv",
        "ssn" => "ssn",
        "apikey" | "api_key" => "apikey",
        "credential" | "credentials" => "credential",
        "mnemonic" => "mnemonic",
        "token" | "tokens" => "token",
        _ => return None,
    })
}

/// Words by which credentials stand, and other things as well.
fn weak_word(word: &str) -> Option<&'static str> {
    Some(match word {
        "code" | "codes" => "code",
        "key" | "keys" => "key",
        "iban" | "ibans" => "iban",
        "account" | "accounts" => "account",
        "card" | "cards" => "card",
        "seed" | "seeds" => "seed",
        "login" | "logins" => "login",
        _ => return None,
    })
}

/// Words that make a weak one strong.
const MAKES_STRONG: &[&str] = &[
    "security",
    "verification",
    "access",
    "recovery",
    "login",
    "api",
    "private",
    "secret",
    "confirmation",
    "backup",
    "auth",
    "authentication",
    "signing",
    "activation",
    "reset",
    "master",
    "time",
    "door",
    "alarm",
    "vault",
];

/// How credentials of well-known services begin.
const PREFIXES: &[&str] = &["sk-", "ghp_", "gho_", "AKIA", "xoxb-", "xoxp-", "eyJ", "glpat-"];

/// Words before a credential among which its word is looked for.
const BEFORE: usize = 6;
/// Words after it.
const AFTER: usize = 2;

/// A value that looks like a credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Credential<'t> {
    pub(crate) value: &'t str,
    /// The word that it stands by.
    pub(crate) word: &'static str,
    /// Whether that word leaves no doubt.
    pub(crate) strong: bool,
}

/// A word that speaks of credentials, and the index of its piece.
#[derive(Clone, Copy)]
struct Speaker {
    at: usize,
    word: &'static str,
    strong: bool,
}

/// The values of a text that look like credentials: a word with a digit near a word such as `code`, whatever
/// stands after `password:`, and tokens that tell by their first letters.
pub(crate) fn credentials(text: &str) -> Vec<Credential<'_>> {
    let pieces: Vec<&str> = pieces(text).collect();
    let speakers = speakers(&pieces);
    let mut found = Vec::new();
    for piece in pieces.iter().filter(|p| p.len() >= 16) {
        let value = trimmed(piece);
        if PREFIXES.iter().any(|p| value.starts_with(p)) {
            found.push(Credential { value, word: "token", strong: true });
        }
    }
    // Each piece belongs to the nearest speaker; pieces away from all of them are not looked at.
    let mut done = 0;
    for speaker in &speakers {
        for i in speaker.at.saturating_sub(AFTER).max(done)..(speaker.at + BEFORE + 1).min(pieces.len()) {
            let Some(value) = pieces.get(i).map(|p| trimmed(p)) else { continue };
            let nearest = nearest(&speakers, i).unwrap_or(*speaker);
            let told = nearest.strong && follows(&pieces, nearest.at, i) && value.len() >= 4;
            if i != nearest.at && (secret_shaped(value) || (told && !is_stop(&value.to_lowercase()))) {
                found.push(Credential { value, word: nearest.word, strong: nearest.strong });
            }
            done = i + 1;
        }
    }
    found
}

/// The text cut at white space and at what stands between a name and its value; `name:` keeps its colon.
fn pieces(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| c.is_whitespace() || matches!(c, '"' | '|'))
        .filter(|p| !p.is_empty())
        .flat_map(|piece| {
            let cut = piece.find([':', '=']).map(|i| i + 1).filter(|i| *i < piece.len());
            match cut.map(|i| piece.split_at(i)) {
                Some((name, value)) if !value.starts_with('/') => [name, value],
                _ => [piece, ""],
            }
        })
        .filter(|p| !p.is_empty())
}

fn trimmed(piece: &str) -> &str {
    piece.trim_matches(|c: char| ".,;:=!?\"'()`*<>[]{}".contains(c))
}

fn speakers(pieces: &[&str]) -> Vec<Speaker> {
    let mut found = Vec::new();
    let mut before = String::new();
    for (at, piece) in pieces.iter().enumerate() {
        let word = trimmed(piece);
        // Longer than any word that speaks or makes one speak.
        let word = if word.len() <= 16 { word.to_lowercase() } else { String::new() };
        if let Some(word) = strong_word(&word) {
            found.push(Speaker { at, word, strong: true });
        } else if let Some(word) = weak_word(&word) {
            found.push(Speaker { at, word, strong: MAKES_STRONG.contains(&before.as_str()) });
        }
        before = word;
    }
    found
}

/// The nearest word that speaks of a credential: up to six words before a value, or two after it.
fn nearest(speakers: &[Speaker], i: usize) -> Option<Speaker> {
    let split = speakers.partition_point(|s| s.at < i);
    let before = split.checked_sub(1).and_then(|s| speakers.get(s)).filter(|s| i - s.at <= BEFORE);
    let after = speakers.get(split).filter(|s| s.at - i <= AFTER);
    before.or(after).copied()
}

/// A word of letters and digits, or of digits alone, that is no date, time, amount or file.
fn secret_shaped(value: &str) -> bool {
    let digit = value.bytes().any(|b| b.is_ascii_digit());
    let plain = value.chars().all(|c| c.is_alphanumeric() || "-_#!$%&*+^".contains(c));
    let date = crate::dates::years(value).len() == 1 && (value.len() == 4 || value.len() == 10);
    (4..=128).contains(&value.len()) && plain && digit && !date
}

/// Whether a value stands right after `word:`, or after the word and `is`.
fn follows(pieces: &[&str], at: usize, i: usize) -> bool {
    match pieces.get(at + 1..i) {
        Some([]) => pieces.get(at).is_some_and(|w| w.ends_with([':', '='])),
        Some([word]) => matches!(*word, "is" | "to" | "was" | "be" | "=" | ":" | "-"),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_known_by_their_neighbours() {
        fn found(text: &str) -> Vec<&str> {
            credentials(text).into_iter().map(|c| c.value).collect()
        }
        for (text, expected) in [
            ("Your security code is 463820.", vec!["463820"]),
            ("password: hunter", vec!["hunter"]),
            ("The password is correcthorse", vec!["correcthorse"]),
            ("PIN 1234", vec!["1234"]),
            ("Reset your password by Friday", vec![]),
            ("Meet at 10:30 on 2024-05-15 in room 12", vec![]),
            ("use AKIAIOSFODNN7EXAMPLE", vec!["AKIAIOSFODNN7EXAMPLE"]),
        ] {
            assert_eq!(found(text), expected, "{text}");
        }
    }
}
