//! Compiles the built-in list of secrets, so that no start of a gate has to: the automaton as bytes, and
//! the literals with which its matches begin as Rust.

#![expect(clippy::disallowed_methods, reason = "a build script writes files for the compiler")]

use std::{env, error::Error, fs, path::PathBuf};

#[path = "src/automaton.rs"]
mod automaton;
#[path = "src/secrets.rs"]
#[allow(dead_code, reason = "the crate reads what this script does not")]
mod secrets;

/// The built-in list is ours; this only keeps a slip in it from eating the memory of the machine.
const BYTES_MAX: usize = 24 << 20;

fn main() -> Result<(), Box<dyn Error>> {
    for file in ["build.rs", "src/automaton.rs", "src/secrets.rs"] {
        println!("cargo::rerun-if-changed={file}");
    }
    let hirs: Vec<_> = secrets::SECRETS
        .iter()
        .map(|secret| automaton::parse_secret(secret.regex))
        .collect::<Result<_, _>>()?;
    let hirs: Vec<_> = hirs.iter().collect();
    let dfa = automaton::automaton(&hirs, BYTES_MAX).ok_or("the automaton of the secrets is too large")?;
    let (bytes, padding) = match env::var("CARGO_CFG_TARGET_ENDIAN")?.as_str() {
        "big" => dfa.to_bytes_big_endian(),
        _ => dfa.to_bytes_little_endian(),
    };
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("secrets.dfa"), bytes.get(padding..).ok_or("padding")?)?;
    let literals = automaton::literals(&hirs).unwrap_or_default();
    let sets: Vec<String> = literals.iter().map(|set| format!("&{set:?}")).collect();
    let source = format!("static BUILT_IN_LITERALS: &[&[&[u8]]] = &[{}];\n", sets.join(", "));
    fs::write(out.join("literals.rs"), source.replace("[[", "[&[").replace("], [", "], &["))?;
    Ok(())
}
