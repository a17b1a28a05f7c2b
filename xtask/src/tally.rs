//! Counting what passed, failed and was skipped, over runners that count in their own ways.

use std::fmt;

/// What one part of a run came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Checks that held.
    pub(crate) passed: u64,
    /// Checks that did not, each with a name and why.
    pub(crate) failures: Vec<String>,
    /// What could not be run here, each with a name and why.
    pub(crate) skipped: Vec<String>,
}

impl Tally {
    /// `n` checks that held.
    pub(crate) fn passed(n: u64) -> Self {
        Self { passed: n, ..Self::default() }
    }

    /// One check that did not hold.
    pub(crate) fn failed(what: impl Into<String>) -> Self {
        Self { failures: vec![what.into()], ..Self::default() }
    }

    /// One part that this machine cannot run.
    pub(crate) fn skipped(name: &str, why: impl fmt::Display) -> Self {
        Self { skipped: vec![format!("{name} ({why})")], ..Self::default() }
    }

    /// Passed if `problem` is none.
    pub(crate) fn check(problem: Option<String>) -> Self {
        problem.map_or_else(|| Self::passed(1), Self::failed)
    }

    /// Adds another part's counts.
    pub(crate) fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failures.extend(other.failures);
        self.skipped.extend(other.skipped);
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed, {} skipped", self.passed, self.failures.len(), self.skipped.len())
    }
}

/// How nextest's closing line begins.
const NEXTEST: &str = "Summary [";

/// Reads the counts that `cargo nextest` or `cargo test` printed; none if it printed none.
pub(crate) fn from_test_output(output: &str) -> Option<Tally> {
    let mut seen = None::<Tally>;
    // nextest repeats what a failing test binary printed, which has libtest's lines in it.
    let nextest = output.lines().any(|line| strip_colour(line).trim().starts_with(NEXTEST));
    for line in output.lines().map(strip_colour) {
        let line = line.trim();
        if let Some(counts) = line.strip_prefix(if nextest { NEXTEST } else { "test result:" }) {
            seen.get_or_insert_with(Tally::default).add(counted(counts));
        }
        let name = if nextest { nextest_failure(line) } else { libtest_failure(line) };
        if let Some(name) = name {
            let tally = seen.get_or_insert_with(Tally::default);
            // Both runners name a failure twice: as it happens and in the closing list.
            if !tally.failures.iter().any(|f| f == name) {
                tally.failures.push(name.to_owned());
            }
        }
    }
    seen
}

fn counted(counts: &str) -> Tally {
    let word = |word: &str| {
        let mut before = "";
        for token in counts.split([' ', ',', ';', ':']).filter(|t| !t.is_empty()) {
            if token == word {
                return before.parse().unwrap_or(0);
            }
            before = token;
        }
        0_u64
    };
    // An ignored test of libtest and a skipped one of nextest are both tests that a filter left out.
    let left_out = word("ignored") + word("skipped");
    let skipped = (0..left_out).map(|_| "a test left out by its own attribute".to_owned()).collect();
    Tally { passed: word("passed"), failures: Vec::new(), skipped }
}

fn nextest_failure(line: &str) -> Option<&str> {
    let rest = line.strip_prefix("FAIL [").or_else(|| line.strip_prefix("TIMEOUT ["))?;
    let (_, name) = rest.split_once(']')?;
    // nextest may print "(12/340)" between the time and the name.
    let name = name.trim_start();
    Some(name.split_once(") ").map_or(name, |(_, n)| n).trim())
}

fn libtest_failure(line: &str) -> Option<&str> {
    line.strip_prefix("test ")?.strip_suffix(" ... FAILED")
}

fn strip_colour(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        if c == '\u{1b}' {
            chars.by_ref().find(char::is_ascii_alphabetic);
        } else {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_runners_are_read() {
        let nextest = "\
  \u{1b}[32;1mPASS\u{1b}[0m [   0.005s] (1/3) castra-core time::tests::text_goes_both_ways
        FAIL [   0.004s] (2/3) castra-core names::tests::names_are_checked
    test names::tests::names_are_checked ... FAILED
    test result: FAILED. 0 passed; 1 failed; 0 ignored; 0 measured; 5 filtered out; finished in 0.00s
────────────
     Summary [   0.013s] 3 tests run: 2 passed (1 slow), 1 failed, 4 skipped
        FAIL [   0.004s] (2/3) castra-core names::tests::names_are_checked
";
        let tally = from_test_output(nextest).expect("counts");
        assert_eq!(tally.to_string(), "2 passed, 1 failed, 4 skipped");
        assert_eq!(tally.failures, ["castra-core names::tests::names_are_checked"]);

        let libtest = "\
test a::b ... ok
test a::c ... FAILED
test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s
test result: ok. 5 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s
";
        let tally = from_test_output(libtest).expect("counts");
        assert_eq!(tally.to_string(), "6 passed, 1 failed, 1 skipped");
        assert_eq!(tally.failures, ["a::c"]);
        assert_eq!(from_test_output("error: could not compile"), None);
    }
}
