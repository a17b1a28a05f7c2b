//! Cedar's text in tokens, as far as taking policies apart needs it. Cedar has parsed the text before.

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Token<'a> {
    /// `(`, `[` or `{`
    Open(char),
    /// `)`, `]` or `}`
    Close(char),
    And,
    Or,
    /// An identifier, keyword or number.
    Word(&'a str),
    /// What stands between the quotes of a string, escapes and all.
    Text(&'a str),
    /// Any other character.
    Other(char),
}

/// The tokens with their byte offsets.
pub(crate) fn tokens(text: &str) -> impl Iterator<Item = (usize, Token<'_>)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        at += space_and_comments(text.get(at..)?);
        let rest = text.get(at..)?;
        let start = at;
        let (length, token) = match rest.chars().next()? {
            '"' => {
                let length = string_length(rest);
                (length, Token::Text(rest.get(1..length.saturating_sub(1)).unwrap_or_default()))
            }
            open @ ('(' | '[' | '{') => (1, Token::Open(open)),
            close @ (')' | ']' | '}') => (1, Token::Close(close)),
            _ if rest.starts_with("&&") => (2, Token::And),
            _ if rest.starts_with("||") => (2, Token::Or),
            other => match rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len()) {
                0 => (other.len_utf8(), Token::Other(other)),
                length => (length, Token::Word(rest.get(..length)?)),
            },
        };
        at += length;
        Some((start, token))
    })
}

/// Length of the white space and `//` comments in front.
pub(crate) fn space_and_comments(text: &str) -> usize {
    let mut rest = text;
    loop {
        let trimmed = rest.trim_start();
        match trimmed.strip_prefix("//") {
            Some(comment) => rest = comment.find('\n').and_then(|n| comment.get(n..)).unwrap_or_default(),
            None => return text.len() - trimmed.len(),
        }
    }
}

/// Length of the string literal that `text` starts with, quotes included.
pub(crate) fn string_length(text: &str) -> usize {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}
