//! The policies that a new state folder begins with.

/// Lets through what only reads, lets models be asked and refuses the rest; explains Cedar in its comments.
pub const STARTER_POLICY: &str = include_str!("starter.cedar");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Catalogue, Engine, PolicySource};

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
