//! Text as flow control compares it: words, what a look-alike letter stands for, and hashes.
//!
//! Two ways of reading are kept apart. A value is *founded* only letter by letter (case aside), so
//! nothing here is folded for that. What is *recognised* as dangerous is read as a person would read it,
//! without invisible characters and with look-alikes folded, so that spelling hides nothing.

/// Words that say nothing by themselves.
const STOP: &[&str] = &[
    "a", "an", "the", "at", "in", "on", "of", "for", "to", "and", "or", "with", "from", "by", "is", "it",
    "its", "my", "your", "our", "me", "i", "you", "s", "ve", "m", "re", "hi",
];

pub(crate) fn is_stop(word: &str) -> bool {
    STOP.contains(&word)
}

/// Whether a character is part of a word. `@` is, so that an address does not fall apart into a name.
fn in_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '@'
}

/// The words of a text, as they are written.
pub(crate) fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !in_word(c)).filter(|w| !w.is_empty())
}

/// The words of a text with the byte at which each begins.
pub(crate) fn words_at(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let start = text.as_ptr() as usize;
    words(text).map(move |word| (word.as_ptr() as usize - start, word))
}

/// The words of a text in lower case.
pub(crate) fn lower_words(text: &str) -> Vec<Box<str>> {
    words(text).map(|w| w.to_lowercase().into()).collect()
}

/// A hash that is the same on every machine and in every version, because runs and marks are kept. A
/// collision makes a run stricter; what is trusted is compared itself and never by its hash.
pub(crate) fn hash(text: &str) -> u64 {
    hash_bytes(text.as_bytes())
}

fn hash_bytes(bytes: &[u8]) -> u64 {
    let mut hash = Hash::default();
    hash.bytes(bytes);
    hash.finish()
}

/// A hash that grows: the hash of words in a row is that of their letters without anything between.
pub(crate) struct Hash(u64);

impl Default for Hash {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Hash {
    fn bytes(&mut self, bytes: &[u8]) {
        self.0 = bytes.iter().fold(self.0, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x0000_0100_0000_01b3));
    }

    /// Appends a word as a person reads it.
    pub(crate) fn word(&mut self, word: &str, buffer: &mut String) {
        if word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()) {
            return self.bytes(word.as_bytes());
        }
        buffer.clear();
        word.chars().for_each(|c| fold_char(c, buffer));
        self.bytes(buffer.as_bytes());
    }

    pub(crate) fn finish(&self) -> u64 {
        mixed(self.0)
    }
}

/// Spreads the bits of a hash.
fn mixed(mut h: u64) -> u64 {
    h = (h ^ (h >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    h = (h ^ (h >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    h ^ (h >> 33)
}

/// The hashes of all sequences of `N` consecutive words, in order.
pub(crate) fn phrases<const N: usize>(words: &[u64]) -> impl Iterator<Item = u64> {
    words.windows(N).map(|window| window.iter().fold(0, |h: u64, w| mixed(h.rotate_left(17) ^ w)))
}

/// The hashes of the words of a text as a person reads it, with the byte at which each begins.
pub(crate) fn word_hashes(text: &str) -> Vec<(usize, u64)> {
    let mut folded = String::new();
    let mut found = Vec::new();
    for (at, word) in words_at(text) {
        if word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()) {
            found.push((at, hash(word)));
            continue;
        }
        folded.clear();
        word.chars().for_each(|c| fold_char(c, &mut folded));
        if !folded.is_empty() {
            found.push((at, hash(&folded)));
        }
    }
    found
}

/// The text as a person reads it: lower case, without what cannot be seen, look-alikes folded.
pub(crate) fn folded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    text.chars().for_each(|c| fold_char(c, &mut out));
    out
}

/// Appends what a person reads in this character. Never more than four bytes per byte of it.
pub(crate) fn fold_char(c: char, out: &mut String) {
    if c.is_ascii() {
        out.push(c.to_ascii_lowercase());
        return;
    }
    if is_unseen(c) {
        return;
    }
    match look_alike(c) {
        Some(plain) => out.push(plain),
        None => c.to_lowercase().for_each(|c| out.push(look_alike(c).unwrap_or(c))),
    }
}

/// Characters that take no room: they split a word for a machine and not for a reader.
pub(crate) fn is_unseen(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}'
        | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{feff}' | '\u{ffa0}' | '\u{fe00}'..='\u{fe0f}'
        | '\u{300}'..='\u{36f}' | '\u{e0000}'..='\u{e0fff}')
}

/// The ASCII character that a look-alike stands for: full-width and mathematical forms, and the letters
/// of Cyrillic, Greek and Latin that are drawn alike.
pub(crate) fn look_alike(c: char) -> Option<char> {
    let code = u32::from(c);
    let ascii = |base: u32, first: char| char::from_u32(u32::from(first) + (code - base));
    match code {
        0xff01..=0xff5e => return char::from_u32(code - 0xff01 + 0x21).map(|c| c.to_ascii_lowercase()),
        // Mathematical alphabets: thirteen styles of 52 letters, then digits in five styles.
        0x1d400..=0x1d6a3 => {
            return char::from_u32(u32::from('a') + (code - 0x1d400) % 26);
        }
        0x1d7ce..=0x1d7ff => return char::from_u32(u32::from('0') + (code - 0x1d7ce) % 10),
        0x24d0..=0x24e9 => return ascii(0x24d0, 'a'),
        0x24b6..=0x24cf => return ascii(0x24b6, 'a'),
        0x1f130..=0x1f149 => return ascii(0x1f130, 'a'),
        0x2460..=0x2468 => return ascii(0x2460, '1'),
        _ => {}
    }
    Some(match c {
        'а' | 'А' | 'α' | 'Α' | 'ɑ' | 'à' | 'á' | 'â' | 'ä' | 'ã' | 'å' | 'ā' | 'ạ' => 'a',
        'В' | 'Β' | 'ь' => 'b',
        'с' | 'С' | 'ϲ' | 'ç' | 'ć' | 'č' => 'c',
        'ԁ' | 'ɗ' | 'ď' => 'd',
        'е' | 'Е' | 'Ε' | 'ё' | 'Ё' | 'è' | 'é' | 'ê' | 'ë' | 'ē' | 'ė' | 'ẹ' => 'e',
        'ɡ' | 'ğ' => 'g',
        'һ' | 'Н' | 'Η' => 'h',
        'і' | 'І' | 'ι' | 'Ι' | 'ı' | 'ì' | 'í' | 'î' | 'ï' | 'ị' => 'i',
        'ј' | 'Ј' => 'j',
        'к' | 'К' | 'κ' | 'Κ' => 'k',
        'ӏ' | 'Ӏ' | 'ⅼ' | 'ł' => 'l',
        'м' | 'М' | 'Μ' | 'ⅿ' => 'm',
        'п' | 'Ν' | 'ñ' | 'ń' => 'n',
        'о' | 'О' | 'ο' | 'Ο' | 'ò' | 'ó' | 'ô' | 'ö' | 'õ' | 'ø' | 'ọ' | 'օ' => 'o',
        'р' | 'Р' | 'ρ' | 'Ρ' => 'p',
        'ԛ' => 'q',
        'ѕ' | 'Ѕ' | 'ś' | 'š' => 's',
        'т' | 'Т' | 'τ' | 'Τ' => 't',
        'υ' | 'ս' | 'ù' | 'ú' | 'û' | 'ü' => 'u',
        'ν' | 'ѵ' => 'v',
        'ԝ' | 'ω' => 'w',
        'х' | 'Х' | 'χ' | 'Χ' => 'x',
        'у' | 'У' | 'γ' | 'Υ' | 'ý' | 'ÿ' => 'y',
        'Ζ' | 'ž' | 'ź' | 'ż' => 'z',
        '。' | '．' | '․' | '｡' | '·' => '.',
        '⁄' | '∕' | '／' => '/',
        '：' | '∶' | '꞉' => ':',
        '‐' | '‑' | '‒' | '–' | '−' | '﹣' => '-',
        '＠' | '﹫' => '@',
        _ => return None,
    })
}

/// At most `max` characters, with an ellipsis where something was cut, on one line.
pub(crate) fn shown(text: &str, max: usize) -> String {
    let mut chars = text.chars().map(|c| if c.is_control() || is_unseen(c) { ' ' } else { c });
    let mut out: String = chars.by_ref().take(max).collect();
    if chars.next().is_some() {
        out.pop();
        out.push('…');
    }
    out
}

/// The longest prefix of at most `max` bytes that ends between characters.
pub(crate) fn prefix(text: &str, max: usize) -> &str {
    let mut end = max.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default()
}

/// The words that a verb or noun may be written as, reduced to one: a plural or a past form to its stem.
pub(crate) fn stem(word: &str) -> &str {
    for ending in ["ing", "ies", "ied", "es", "ed", "s", "e", "y"] {
        if let Some(stem) = word.strip_suffix(ending)
            && stem.chars().count() >= 3
        {
            return stem;
        }
    }
    word
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn look_alikes_are_read_as_a_person_reads_them() {
        for (written, read) in [
            ("ｅｖｉｌ．ｃｏｍ", "evil.com"),
            ("еvil.соm", "evil.com"),
            ("ev\u{200b}il\u{ad}.com", "evil.com"),
            ("𝐞𝐯𝐢𝐥", "evil"),
            ("Ⓔⓥil", "evil"),
            ("ÉVIL", "evil"),
        ] {
            assert_eq!(folded(written), read, "{written}");
        }
    }

    #[test]
    fn words_keep_addresses_together_and_know_their_place() {
        assert_eq!(words("a@b.com, x_y-z").collect::<Vec<_>>(), ["a@b", "com", "x_y", "z"]);
        assert_eq!(words_at("ab  cd").collect::<Vec<_>>(), [(0, "ab"), (4, "cd")]);
    }

    #[test]
    fn hashes_stay_what_they_are() {
        assert_eq!(hash("castra"), hash_bytes(b"castra"));
        assert_ne!(hash("castra"), hash("castrb"));
    }
}
