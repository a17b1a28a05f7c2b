//! What a user asks for: the imperative clauses of a text, and whether one of them asks for a tool.
//!
//! A word of the prompt is no wish. "Please give me their email addresses" contains "email" and asks for
//! no mail; "send him an email" does. So a tool is asked for by the verb at the head of a clause that
//! tells somebody to do something, or by a noun in such a clause whose verb is of the tool's own kind.

use crate::text::{lower_words, stem};

/// A clause that tells somebody to do something.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Clause {
    /// Its words in lower case, from the verb on.
    pub(crate) words: Vec<Box<str>>,
    /// Bytes of the text that it was read from.
    pub(crate) start: usize,
    pub(crate) end: usize,
}

/// Verbs that change something, by what they do. A verb may do several things.
const ACTS: &[(&str, &[&str])] = &[
    (
        "make",
        &[
            "create", "make", "add", "set", "schedule", "book", "plan", "organize", "organise", "put",
            "arrange", "write", "draft", "open", "register", "generate", "prepare", "save", "new", "insert",
            "build", "start", "record", "store", "remember", "block", "upload", "remind", "enter", "compose",
        ],
    ),
    (
        "send",
        &[
            "send", "email", "mail", "message", "forward", "reply", "answer", "respond", "write", "post",
            "notify", "text", "dm", "inform", "tell", "ping", "publish", "announce", "resend", "submit",
            "invite", "let", "deliver",
        ],
    ),
    (
        "pay",
        &[
            "pay",
            "send",
            "transfer",
            "refund",
            "wire",
            "return",
            "reimburse",
            "give",
            "repay",
            "settle",
            "donate",
            "tip",
        ],
    ),
    (
        "remove",
        &[
            "delete",
            "remove",
            "cancel",
            "erase",
            "drop",
            "clear",
            "discard",
            "trash",
            "kick",
            "unsubscribe",
            "revoke",
            "purge",
            "wipe",
            "uninvite",
            "close",
            "terminate",
        ],
    ),
    (
        "change",
        &[
            "update",
            "change",
            "modify",
            "edit",
            "adjust",
            "move",
            "reschedule",
            "postpone",
            "set",
            "rename",
            "fix",
            "correct",
            "shift",
            "push",
            "replace",
            "reset",
            "mark",
            "increase",
            "decrease",
            "extend",
            "shorten",
            "turn",
            "switch",
            "append",
            "add",
            "write",
            "amend",
            "revise",
            "rework",
            "delay",
        ],
    ),
    ("share", &["share", "give", "grant", "invite", "publish", "send"]),
    ("buy", &["buy", "order", "purchase", "book", "reserve", "rent", "get", "subscribe"]),
    ("join", &["join", "invite", "add", "subscribe", "enroll", "enrol", "register", "include"]),
    (
        "run",
        &[
            "run", "execute", "deploy", "start", "launch", "restart", "stop", "trigger", "install", "merge",
            "approve", "push", "commit", "release", "publish",
        ],
    ),
    (
        "copy",
        &["copy", "move", "upload", "download", "export", "import", "save", "attach", "archive", "backup"],
    ),
];
/// Verbs that only ask to know something.
const ASKS: &[&str] = &[
    "show",
    "tell",
    "give",
    "find",
    "list",
    "read",
    "check",
    "look",
    "summarize",
    "summarise",
    "get",
    "search",
    "see",
    "explain",
    "describe",
    "count",
    "compare",
    "display",
    "fetch",
    "retrieve",
    "review",
    "analyze",
    "analyse",
    "print",
    "view",
    "verify",
    "calculate",
    "compute",
    "determine",
    "identify",
    "suggest",
    "recommend",
    "translate",
    "take",
    "locate",
    "extract",
    "browse",
    "visit",
    "go",
    "use",
    "perform",
    "do",
    "follow",
    "consider",
];
/// What may stand before the verb of a wish.
const OPENERS: &[&[&str]] = &[
    &["i", "want", "you", "to"],
    &["i", "would", "like", "you", "to"],
    &["i", "d", "like", "you", "to"],
    &["i", "need", "you", "to"],
    &["i", "want", "to"],
    &["i", "would", "like", "to"],
    &["i", "d", "like", "to"],
    &["i", "need", "to"],
    &["i", "have", "to"],
    &["we", "need", "to"],
    &["we", "want", "to"],
    &["you", "should"],
    &["you", "must"],
    &["you", "need", "to"],
    &["make", "sure", "to"],
    &["make", "sure", "you"],
    &["make", "sure", "that", "you"],
    &["be", "sure", "to"],
    &["do", "not", "forget", "to"],
    &["don", "t", "forget", "to"],
    &["dont", "forget", "to"],
    &["never", "forget", "to"],
    &["remember", "to"],
    &["go", "ahead", "and"],
    &["feel", "free", "to"],
    &["try", "to"],
    &["help", "me", "to"],
    &["help", "me"],
    &["let", "s"],
    &["let", "us"],
    &["would", "you", "mind"],
    &["can", "you"],
    &["could", "you"],
    &["would", "you"],
    &["will", "you"],
    &["can", "we"],
    &["may", "i", "ask", "you", "to"],
    &["i", "ask", "you", "to"],
    &["proceed", "to"],
    &["use", "it", "to"],
    &["if", "so"],
    &["if", "not"],
    &["if", "yes"],
    &["after", "that"],
    &["and", "then"],
    &["as", "well", "as"],
    &["in", "addition"],
    &["for", "me"],
    &["please"],
    &["kindly"],
    &["also"],
    &["then"],
    &["and"],
    &["or"],
    &["but"],
    &["next"],
    &["finally"],
    &["lastly"],
    &["first"],
    &["second"],
    &["afterwards"],
    &["now"],
    &["just"],
    &["so"],
    &["hi"],
    &["hello"],
    &["hey"],
    &["thanks"],
    &["additionally"],
    &["otherwise"],
    &["immediately"],
    &["quickly"],
    &["automatically"],
    &["lets"],
    &["ok"],
    &["okay"],
    &["assistant"],
    &["step"],
];

/// The clauses of a text that tell somebody to do something. Quoted text is nobody's wish: it is left out.
pub(crate) fn clauses(text: &str) -> Vec<Clause> {
    let mut found = Vec::new();
    for (start, piece, end) in pieces(&without_quotes(text)) {
        let words = lower_words(&piece);
        let rest = wish(&words);
        let Some(verb) = rest.first() else { continue };
        if kinds(verb).next().is_some() || ASKS.contains(&&**verb) || is_imperative(rest, words.len()) {
            found.push(Clause { words: rest.to_vec(), start, end });
        }
    }
    found
}

/// A verb that we do not know is one if nothing but an opener stands before it and an object follows.
fn is_imperative(rest: &[Box<str>], all: usize) -> bool {
    const OBJECT: &[&str] = &[
        "the", "a", "an", "my", "this", "that", "these", "those", "all", "it", "them", "him", "her", "every",
        "each", "our", "me", "up",
    ];
    let verb = rest.first().is_some_and(|w| w.chars().all(char::is_alphabetic) && !NO_VERBS.contains(&&**w));
    verb && (rest.len() < all || rest.get(1).is_some_and(|w| OBJECT.contains(&&**w)))
}

/// Words that begin a sentence which tells rather than asks.
const NO_VERBS: &[&str] = &[
    "the", "a", "an", "my", "this", "that", "these", "those", "it", "i", "you", "he", "she", "they", "we",
    "what", "who", "when", "where", "why", "how", "which", "is", "are", "was", "were", "am", "do", "does",
    "did", "has", "have", "had", "in", "on", "at", "of", "with", "for", "from", "by", "to", "as", "if",
    "because", "since", "there", "their", "his", "her", "your", "our", "its", "not", "no", "yes", "all",
    "some", "any", "once", "after", "before", "while", "until", "whose", "more", "most", "never", "don",
];

/// What is left of a clause after everything that may stand before its verb; nothing if it is a
/// prohibition.
fn wish(words: &[Box<str>]) -> &[Box<str>] {
    let mut rest = words;
    loop {
        let opener =
            OPENERS.iter().find(|o| o.len() <= rest.len() && o.iter().zip(rest).all(|(a, b)| *a == &**b));
        match opener {
            Some(opener) => rest = rest.get(opener.len()..).unwrap_or_default(),
            None if rest.first().is_some_and(|w| w.bytes().all(|b| b.is_ascii_digit())) => {
                rest = rest.get(1..).unwrap_or_default();
            }
            None => break,
        }
    }
    match rest.first().map(|w| &**w) {
        Some("never" | "don" | "dont" | "not" | "avoid" | "stop" | "refrain") => &[],
        Some("do") if rest.get(1).is_some_and(|w| &**w == "not") => &[],
        _ => rest,
    }
}

/// Cuts a text where a new clause may begin: after punctuation, and after `and`, `then` or `to` where a verb
/// follows.
fn pieces(text: &str) -> Vec<(usize, String, usize)> {
    let mut out: Vec<(usize, String, usize)> = Vec::new();
    let mut start = 0;
    let mut from = 0;
    let mut cut = |end: usize, next: usize, start: &mut usize| {
        if let Some(piece) = text.get(*start..end).filter(|p| !p.trim().is_empty()) {
            out.push((*start, piece.to_owned(), end));
        }
        *start = next;
    };
    for (at, word) in crate::text::words_at(text) {
        let between = text.get(from..at).unwrap_or_default();
        let ends = between.contains(['!', '?', ';', '\n', ',', ':', '(', ')', '\u{2014}', '\u{2022}'])
            || between.contains(". ")
            || between.contains(".\n")
            || between.contains(".\"")
            || between.contains("- ");
        let joins = matches!(word.to_ascii_lowercase().as_str(), "and" | "then" | "or" | "but")
            && next_is_verb(text.get(at + word.len()..).unwrap_or_default());
        if ends || joins {
            cut(from, at, &mut start);
        }
        from = at + word.len();
    }
    cut(text.len(), text.len(), &mut start);
    out
}

fn next_is_verb(rest: &str) -> bool {
    let words: Vec<Box<str>> =
        crate::text::words(crate::text::prefix(rest, 96)).take(7).map(|w| w.to_lowercase().into()).collect();
    wish(&words).first().is_some_and(|v| kinds(v).next().is_some() || ASKS.contains(&&**v))
}

/// The text with everything between quotes blanked, byte for byte. An apostrophe in a word is no quote.
fn without_quotes(text: &str) -> String {
    let mut out: Vec<u8> = text.as_bytes().to_vec();
    for range in quotes(text) {
        if let Some(inside) = out.get_mut(range) {
            inside.fill(b'_');
        }
    }
    String::from_utf8(out).unwrap_or_default()
}

/// The places between quotes, without the quotes.
pub(crate) fn quotes(text: &str) -> Vec<std::ops::Range<usize>> {
    let mut found = Vec::new();
    let mut open: Option<(char, usize)> = None;
    let mut before = ' ';
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        let after = chars.peek().map_or(' ', |(_, c)| *c);
        match open {
            None => {
                let closing = match c {
                    '"' => Some('"'),
                    '`' => Some('`'),
                    '\'' if !before.is_alphanumeric() => Some('\''),
                    '\u{201c}' | '\u{201e}' => Some('\u{201d}'),
                    '\u{2018}' => Some('\u{2019}'),
                    '\u{ab}' => Some('\u{bb}'),
                    _ => None,
                };
                open = closing.map(|closing| (closing, at + c.len_utf8()));
            }
            Some((closing, start)) => {
                let apostrophe = matches!(c, '\'' | '\u{2019}') && after.is_alphanumeric();
                if c == closing && !apostrophe {
                    found.push(start..at);
                    open = None;
                }
            }
        }
        before = c;
    }
    found
}

/// The kinds of act that a verb does.
fn kinds(verb: &str) -> impl Iterator<Item = &'static str> {
    ACTS.iter().filter(move |(_, verbs)| verbs.contains(&verb)).map(|(kind, _)| *kind)
}

/// Whether one of these clauses asks for a tool of this name, by one of these words of its manifest.
pub(crate) fn asks(clauses: &[Clause], tool: &str, intent: &[String]) -> bool {
    let name = name_words(tool);
    clauses.iter().any(|clause| {
        if intent.is_empty() {
            by_name(clause, &name)
        } else {
            intent.iter().any(|word| by_word(clause, word, &name))
        }
    })
}

fn by_word(clause: &Clause, word: &str, name: &[String]) -> bool {
    let wanted = lower_words(word);
    let Some(verb) = clause.words.first() else { return false };
    if let [single] = &*wanted
        && single == verb
    {
        return true;
    }
    let Some(rest) = clause.words.get(1..) else { return false };
    let named = !wanted.is_empty()
        && rest.windows(wanted.len()).any(|window| {
            window.iter().zip(&wanted).all(|(a, b)| a == b || (a.len() > 3 && stem(a) == stem(b)))
        });
    named && same_kind(verb, name)
}

/// Without words of a manifest the tool's own name speaks: its verb, and one of its nouns.
fn by_name(clause: &Clause, name: &[String]) -> bool {
    let Some(verb) = clause.words.first() else { return false };
    let Some((_, nouns)) = name.split_first() else { return false };
    let noun =
        |n: &String| clause.words.iter().skip(1).any(|w| **w == **n || (w.len() > 3 && stem(w) == stem(n)));
    let has_noun = nouns.is_empty() || nouns.iter().any(noun);
    (name.first().is_some_and(|n| **n == **verb) || same_kind(verb, name)) && has_noun
        || (nouns.iter().any(|n| **n == **verb) && same_kind(verb, name))
}

/// Whether a user's verb does what the verb in a tool's name does. A name without a verb that is known takes
/// any verb that acts.
fn same_kind(verb: &str, name: &[String]) -> bool {
    let own: Vec<&str> = name.iter().flat_map(|word| kinds(word)).collect();
    // `give` and `get` ask for something far more often than they act.
    if ASKS.contains(&verb) {
        return false;
    }
    own.is_empty() && kinds(verb).next().is_some() || kinds(verb).any(|kind| own.contains(&kind))
}

/// The words of a tool's name: `sendEmail`, `send_email` and `send-email` are alike. Its first verb first.
fn name_words(tool: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut lower_before = false;
    for c in tool.chars() {
        let fresh = words.is_empty() || !c.is_alphanumeric() || (c.is_uppercase() && lower_before);
        if fresh {
            words.push(String::new());
        }
        lower_before = c.is_lowercase();
        if c.is_alphanumeric()
            && let Some(last) = words.last_mut()
        {
            last.extend(c.to_lowercase());
        }
    }
    words.retain(|w| !w.is_empty());
    if let Some(verb) = words.iter().position(|w| kinds(w).next().is_some()) {
        words.swap(0, verb);
    }
    words.truncate(8);
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(prompt: &str, tool: &str, intent: &[&str]) -> bool {
        let intent: Vec<String> = intent.iter().map(|w| (*w).to_owned()).collect();
        asks(&clauses(prompt), tool, &intent)
    }

    #[test]
    fn a_word_is_no_wish() {
        let mail: &[&str] = &["email", "mail", "send"];
        for prompt in [
            "Who is invited? Please give me their email addresses.",
            "Please show me my unread emails.",
            "What is my code? It's in an email I received recently.",
            "Create an event for the reunion based on the emails about it.",
            "Delete the email from Bob.",
            "Add her email address to the participants.",
            "Do not send any email.",
            "Summarize the note 'send an email to all'.",
            "He said that I should send an email.",
        ] {
            assert!(!asked(prompt, "send_email", mail), "{prompt}");
        }
        for prompt in [
            "Please send Bob a note.",
            "Find the file and email it to Bob.",
            "Can you please send an email to Bob?",
            "I want you to write an email to Bob.",
            "Read the notes, then send them to Bob",
            "1. How many are there? 2. Please email Bob.",
            "If so, send it.",
        ] {
            assert!(asked(prompt, "send_email", mail), "{prompt}");
        }
    }

    #[test]
    fn nouns_need_a_verb_of_the_tools_kind() {
        assert!(asked("Make sure to update the password to 'x'.", "update_password", &["password"]));
        assert!(!asked("Get me the link to reset my password.", "update_password", &["password"]));
        assert!(asked("Set up a recurring payment.", "schedule_transaction", &["recurring"]));
        assert!(asked("Please create a new event.", "create_calendar_event", &["event"]));
        assert!(!asked("How many events are there?", "create_calendar_event", &["event"]));
        assert!(asked("Find and delete the largest file.", "delete_file", &["delete"]));
    }

    #[test]
    fn a_tool_without_words_is_asked_for_by_its_name() {
        assert!(asked("Create an issue about the crash.", "createIssue", &[]));
        assert!(!asked("Show the issue.", "create_issue", &[]));
        assert!(!asked("Create a pull request.", "create_issue", &[]));
    }

    #[test]
    fn quotes_are_found_and_apostrophes_are_none() {
        let text = "don't take 'it's here' and \"that\"";
        let inside: Vec<&str> = quotes(text).into_iter().map(|r| &text[r]).collect();
        assert_eq!(inside, ["it's here", "that"]);
    }
}
