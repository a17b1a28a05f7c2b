//! `castra log verify`: whether a log, or a receipt, holds, from nothing but its files and its public key.

use std::path::{Path, PathBuf};

use castra_ledger::{RECEIPT_BYTES_MAX, Receipt, Report, SourceError, TileSource, VerifierKey, verify_log};
use castra_net::{
    client::machine_tls,
    fetch::{FetchError, FetchLimits, Fetcher},
    tls::{ClientTlsConfig, client_config},
};
use castra_store::{
    files,
    log::{FolderSource, verify_journal},
};
use serde_json::json;

use crate::{
    cli::{Global, VerifyArgs},
    config::Url,
    context::Context,
    out::{Exit, Failure, Out, Outcome},
};

/// Bytes of a file with a key or a checkpoint.
const SMALL_BYTES_MAX: u64 = 64 << 10;
const KEY_FILE: &str = "log.vkey";

pub(super) fn run(global: &Global, args: &VerifyArgs) -> Outcome {
    let mut out = Out::new(global.json);
    if let Some(file) = &args.receipt {
        return receipt(global, args, file, &mut out);
    }
    let since = args.since.as_ref().map(|file| files::read_bytes(file, SMALL_BYTES_MAX)).transpose()?;
    let (report, journal) = match args.place.as_deref().map(|place| (place, Url::parse(place))) {
        Some((place, Some(url))) => {
            let keys = keys(&args.key, || state_of(global))?;
            let source = Remote::new(&url, args.ca.as_deref())?;
            (verify(place, &source, &keys, since.as_deref())?, None)
        }
        Some((place, None)) => verify_folder(Path::new(place), &args.key, since.as_deref())?,
        None => verify_folder(&state_of(global)?, &args.key, since.as_deref())?,
    };
    out.value(&json!({
        "holds": report.holds(),
        "origin": report.checkpoint.as_ref().map(|c| &c.origin),
        "size": report.checkpoint.as_ref().map(|c| c.size),
        "root": report.checkpoint.as_ref().map(|c| c.root),
        "entries": report.entries,
        "counts": report.counts,
        "journal": journal,
        "findings": report.findings,
        "findings_left_out": report.findings_left_out,
    }));
    out.line(report.to_string().trim_end());
    if let Some(records) = journal {
        out.line(format_args!("The journal beside it was read too: {records} whole records."));
    }
    Ok(if report.holds() { Exit::Done } else { Exit::Found })
}

fn state_of(global: &Global) -> Result<PathBuf, Failure> {
    Ok(Context::new(global)?.state_dir().to_owned())
}

/// Verifies a state folder with its journal, or a copy of its log folder. Gives the records that
/// the journal has, if there is one.
fn verify_folder(
    place: &Path,
    keys_given: &[String],
    since: Option<&[u8]>,
) -> Result<(Report, Option<u64>), Failure> {
    let log = [place.join("log"), place.to_owned()].into_iter().find(|dir| dir.join("checkpoint").exists());
    let Some(log) = log else {
        let what = format!("there is no log in {}: a log has a file called checkpoint", place.display());
        return Err(Failure::new(what).advise("Give a state folder, or a copy of its log folder."));
    };
    let keys = keys(keys_given, || Ok(place.to_owned()))?;
    let mut report = verify(&place.display().to_string(), &FolderSource::open(&log), &keys, since)?;
    let journal = if log == place { None } else { verify_journal(place, &mut report)? };
    Ok((report, journal))
}

fn verify(
    place: &str,
    source: &dyn TileSource,
    keys: &[VerifierKey],
    since: Option<&[u8]>,
) -> Result<Report, Failure> {
    verify_log(source, keys, since, &mut |_| ())
        .map_err(|e| Failure::new(format!("{place} cannot be read: {e}")))
}

/// The given keys, else the one in the folder or beside it.
fn keys(
    given: &[String],
    folder: impl FnOnce() -> Result<PathBuf, Failure>,
) -> Result<Vec<VerifierKey>, Failure> {
    if given.is_empty() {
        return Ok(vec![key_of_state(&folder()?)?]);
    }
    let parse = |text: &String| {
        text.trim().parse().map_err(|e| Failure::usage(format!("--key {text:?} is no verifier key: {e}")))
    };
    given.iter().map(parse).collect()
}

/// The key that a gate published in its state folder.
pub(super) fn key_of_state(folder: &Path) -> Result<VerifierKey, Failure> {
    let places = [folder.join(KEY_FILE), folder.join("..").join(KEY_FILE)];
    let Some(file) = places.iter().find(|file| file.exists()) else {
        let what = format!("there is no {KEY_FILE} in {}", folder.display());
        return Err(Failure::new(what).advise(
            "Give the log's verifier key with --key; `castra log key` prints it where the gate runs.",
        ));
    };
    let text = files::read_text(file, SMALL_BYTES_MAX)?;
    text.trim().parse().map_err(|e| Failure::new(format!("{} holds no verifier key: {e}", file.display())))
}

fn receipt(global: &Global, args: &VerifyArgs, file: &Path, out: &mut Out) -> Outcome {
    let receipt = Receipt::parse(&files::read_bytes(file, RECEIPT_BYTES_MAX as u64)?)?;
    let keys = keys(&args.key, || match &args.place {
        Some(place) => Ok(PathBuf::from(place)),
        None => state_of(global),
    })?;
    let verdict = receipt.verify(&keys);
    let entry = String::from_utf8_lossy(&receipt.entry).into_owned();
    out.value(&json!({
        "holds": verdict.is_ok(), "id": receipt.index, "entry": entry,
        "why": verdict.as_ref().err().map(ToString::to_string),
    }));
    match verdict {
        Ok(checkpoint) => {
            out.line(format_args!(
                "The receipt holds: record {} is in the log {}, among its first {}.",
                receipt.index, checkpoint.origin, checkpoint.size
            ));
            out.line(entry);
            Ok(Exit::Done)
        }
        Err(why) => {
            out.line(format_args!("The receipt does not hold: {why}."));
            Ok(Exit::Found)
        }
    }
}

/// A log that is served over HTTP.
struct Remote {
    base: String,
    fetcher: Fetcher,
    runtime: tokio::runtime::Runtime,
}

impl Remote {
    fn new(url: &Url, ca: Option<&Path>) -> Result<Self, Failure> {
        let tls = match ca {
            Some(ca) => {
                let roots_pem = vec![files::read_bytes(ca, SMALL_BYTES_MAX)?];
                client_config(&ClientTlsConfig { roots_pem, ..ClientTlsConfig::default() })?
            }
            None => machine_tls(false)?,
        };
        // The one who asks chooses the address, so that private ones are meant.
        let limits = FetchLimits {
            bytes_max: castra_ledger::tile::BUNDLE_BYTES_MAX,
            private_addresses: true,
            plain_loopback: true,
            ..FetchLimits::default()
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let mut remote = Self {
            base: url.to_string().trim_end_matches('/').to_owned(),
            fetcher: Fetcher::new(tls.into(), limits),
            runtime,
        };
        // A console's address will do too: the log is below it.
        if remote.read("checkpoint").is_ok_and(|found| found.is_none()) {
            remote.base.push_str("/log");
        }
        Ok(remote)
    }
}

impl TileSource for Remote {
    fn read(&self, path: &str) -> Result<Option<Vec<u8>>, SourceError> {
        let url = format!("{}/{path}", self.base);
        match self.runtime.block_on(self.fetcher.get(&url, "*/*")) {
            Ok(fetched) => Ok(Some(fetched.body.to_vec())),
            Err(FetchError::Status { status, .. }) if status == http::StatusCode::NOT_FOUND => Ok(None),
            Err(e) => Err(SourceError { path: path.to_owned(), cause: e.to_string() }),
        }
    }
}
