//! Texts that look like secrets, made where they are needed.

/// Replaces `{an:36}` and the like by so many characters, and `\n` by a line end.
pub(crate) fn expand(line: &str) -> String {
    let mut out = String::new();
    let mut rest = line;
    while let Some((before, after)) = rest.split_once('{') {
        out.push_str(before);
        let form = after.split_once('}').and_then(|(form, tail)| {
            let (class, count) = form.split_once(':')?;
            Some((class, count.parse::<usize>().ok()?, tail))
        });
        match form {
            Some((class, count, tail)) => {
                out.extend(characters(class, count, out.len()));
                rest = tail;
            }
            None => {
                out.push('{');
                rest = after;
            }
        }
    }
    out.push_str(rest);
    out.replace("\\\\n", "\u{1}").replace("\\n", "\n").replace('\u{1}', "\\n")
}

fn characters(class: &str, count: usize, seed: usize) -> Vec<char> {
    let alphabet: Vec<char> = match class {
        "an" => ('a'..='z').chain('A'..='Z').chain('0'..='9').collect(),
        "hex" => ('0'..='9').chain('a'..='f').collect(),
        "up" => ('A'..='Z').chain('2'..='7').collect(),
        "b64" => ('a'..='z').chain('A'..='Z').chain('0'..='9').chain(['+', '/']).collect(),
        other => panic!("no class {other}"),
    };
    // A digit early, letters of both cases, and never the same run twice.
    (0..count).map(|i| alphabet[(seed * 7 + i * 17 + i * i * 5) % alphabet.len()]).collect()
}

/// The cases of `data/secrets.txt`: what goes in, and what comes out.
pub(crate) fn cases() -> Vec<(String, String)> {
    let lines: Vec<&str> =
        include_str!("../data/secrets.txt").lines().filter(|l| !l.starts_with('#')).collect();
    lines
        .chunks(2)
        .map(|pair| {
            let text = expand(pair[0]);
            let expected = pair[1].strip_prefix("=> ").expect("an expectation");
            let expected = if expected == "clean" { text.clone() } else { expand(expected) };
            (text, expected)
        })
        .collect()
}
