//! Fuzz targets, a fixed number of executions each, with libFuzzer's coverage on the toolchain at hand.
//!
//! The targets live in `fuzz/`, a workspace of its own so that libFuzzer's flags rebuild nothing
//! else. `cargo fuzz run TARGET` works there too, for as long as one likes.

use crate::{chores, run, tally::Tally};

/// Executions per target in a smoke run: a second or two for most.
pub(crate) const EXECUTIONS: u32 = 50_000;

/// A target that does fewer a second ends before: a few do much for each input.
const EXECUTIONS_PER_SECOND_MIN: u32 = 800;

// What cargo-fuzz passes, less the address sanitizer: it needs a nightly compiler, and unsafe code is
// forbidden in every crate that is fuzzed.
const FLAGS: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
     -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
     -Cllvm-args=-sanitizer-coverage-trace-compares -Cdebug-assertions --cfg fuzzing";

/// Builds and runs every target.
pub(crate) fn run(executions: u32) -> Tally {
    if !run::exists("c++") {
        return Tally::skipped("fuzz", "libFuzzer needs a C++ compiler; on Debian: apt-get install g++");
    }
    match chores::alone("fuzz").and_then(|alone| Ok((alone, prepared()?))) {
        Ok((_alone, (host, targets))) => {
            let mut tally = Tally::default();
            for target in targets {
                tally.add(smoke(&host, &target, executions));
            }
            tally
        }
        Err(why) => Tally::failed(format!("fuzz: {why}")),
    }
}

fn prepared() -> Result<(String, Vec<String>), String> {
    let version = run::must(std::process::Command::new("rustc").arg("-vV"))?;
    let host =
        version.lines().find_map(|l| l.strip_prefix("host: ")).ok_or("rustc names no host")?.to_owned();
    let manifest = chores::read(&chores::root().join("fuzz/Cargo.toml"))?;
    let table: toml::Table = manifest.parse().map_err(|e| format!("fuzz/Cargo.toml: {e}"))?;
    let bins = table.get("bin").and_then(toml::Value::as_array).ok_or("fuzz/Cargo.toml has no targets")?;
    let targets = bins.iter().filter_map(|b| b.get("name")?.as_str().map(str::to_owned)).collect();
    let mut build = run::cargo(&["build", "--bins", "--target", &host]);
    build.current_dir(chores::root().join("fuzz")).env("RUSTFLAGS", FLAGS).env("CARGO_TARGET_DIR", folder());
    if run::echoed(&mut build)?.success {
        Ok((host, targets))
    } else {
        Err("the targets do not build".into())
    }
}

fn smoke(host: &str, target: &str, executions: u32) -> Tally {
    let corpus = folder().join("corpus").join(target);
    let artifacts = folder().join("artifacts").join(target).join("");
    for folder in [&corpus, &artifacts] {
        if let Err(e) = std::fs::create_dir_all(folder) {
            return Tally::failed(format!("fuzz {target}: {} cannot be made: {e}", folder.display()));
        }
    }
    let seconds_max = executions.div_ceil(EXECUTIONS_PER_SECOND_MIN);
    let mut fuzzer = std::process::Command::new(folder().join(host).join("debug").join(target));
    fuzzer
        .args([format!("-runs={executions}"), format!("-max_total_time={seconds_max}")])
        // The same inputs on every machine and every day.
        .args(["-seed=1", "-max_len=4096", "-timeout=10", "-rss_limit_mb=2048", "-verbosity=0"])
        .arg(format!("-artifact_prefix={}", artifacts.display()))
        .arg(corpus)
        // Seeds are read, not added to.
        .arg(chores::root().join("fuzz/seeds").join(target));
    match run::quiet(&mut fuzzer) {
        Ok(out) if out.success => {
            println!("fuzz {target}: {executions} executions, or {seconds_max} s");
            Tally::passed(1)
        }
        Ok(out) => Tally::failed(format!("fuzz {target}: {}", told(&out.text))),
        Err(why) => Tally::failed(format!("fuzz {target}: {why}")),
    }
}

/// What libFuzzer's output says in a few lines: the panic, and where the input is kept.
fn told(output: &str) -> String {
    let mut lines = output.lines();
    let panic: Vec<&str> = lines
        .by_ref()
        .skip_while(|line| !line.contains("panicked at") && !line.contains("ERROR: libFuzzer"))
        .take_while(|line| !line.starts_with("stack backtrace"))
        .take(6)
        .collect();
    let kept = lines.find(|line| line.contains("Test unit written to"));
    let told: Vec<&str> = panic.into_iter().chain(kept).collect();
    if told.is_empty() { output.trim_end().to_owned() } else { told.join("\n") }
}

fn folder() -> std::path::PathBuf {
    chores::target().join("fuzz")
}
