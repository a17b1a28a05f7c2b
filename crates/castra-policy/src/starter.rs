//! The policies that Castra brings along: those that a new state folder begins with, and the standard
//! pack, which is flow control.

use crate::PolicySource;

/// Lets through what only reads, lets models be asked and refuses the rest; explains Cedar in its comments.
pub const STARTER_POLICY: &str = include_str!("starter.cedar");

/// The name of [`standard_policies`] in messages and decisions; no file of a folder can have it.
pub const STANDARD_FILE: &str = "castra:standard.cedar";

/// Flow control as policies: the pack that stands beside an operator's own, unless the configuration says
/// otherwise.
pub fn standard_policies() -> PolicySource {
    PolicySource { file: STANDARD_FILE.to_owned(), text: STANDARD.to_owned() }
}

const STANDARD: &str = include_str!("standard.cedar");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Catalogue, Engine};

    fn load(text: String) -> Engine {
        Engine::load(&[PolicySource { file: "starter.cedar".into(), text }], &Catalogue::default()).unwrap()
    }

    #[test]
    fn it_loads_without_warnings() {
        let engine = load(STARTER_POLICY.to_owned());
        assert_eq!(engine.policy_count(), 3);
        assert_eq!(engine.warnings(), []);
    }

    #[test]
    fn its_examples_load_too() {
        let mut within = false;
        let bare = |line: &'static str| {
            within |= line.starts_with("//@id");
            let code = if within { line.trim_start_matches("//") } else { line };
            within &= !code.ends_with("};") && code != ");";
            code
        };
        let engine = load(STARTER_POLICY.lines().map(bare).collect::<Vec<_>>().join("\n"));
        assert_eq!(engine.policy_count(), 7);
    }
}
