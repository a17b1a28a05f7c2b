//! `castra inspect`: looks at a text as the gate would, and says what it found or shows what would leave.

use std::{io::Read, path::Path};

use castra_core::Finding;
use castra_inspect::Inspector;
use castra_store::files;
use serde_json::{Value, json};

use crate::{
    cli::InspectArgs,
    context::Context,
    out::{Exit, Failure, Out, Outcome},
};

/// Bytes of a text. More than any one message that the gate takes.
const TEXT_BYTES_MAX: u64 = 64 << 20;

pub(super) fn run(mut context: Context, args: &InspectArgs) -> Outcome {
    let inspector = Inspector::new(&context.config().inspect.settings())?;
    let text = read(&args.file)?;
    let masked = inspector.mask_text(&text);
    let findings = masked.as_ref().map(|masked| masked.findings.as_slice()).unwrap_or_default();
    let out = &mut context.out;
    if args.mask && !out.is_json() {
        out.document(masked.as_ref().and_then(|masked| masked.text.as_deref()).unwrap_or(&text));
    } else {
        tell(out, &text, findings);
    }
    Ok(if findings.is_empty() { Exit::Done } else { Exit::Found })
}

fn tell(out: &mut Out, text: &str, findings: &[Finding]) {
    let shown: Vec<Value> = findings.iter().map(|finding| as_json(text, finding)).collect();
    out.value(&json!({ "findings": shown }));
    let rows: Vec<[String; 4]> = findings
        .iter()
        .map(|f| {
            let (line, column) = line_and_column(text, f.place.start);
            [
                f.kind.to_string(),
                f.severity.as_str().into(),
                format!("{} %", f.confidence),
                format!("{line}:{column}"),
            ]
        })
        .collect();
    if rows.is_empty() {
        out.line("nothing was found");
    } else {
        out.table(["KIND", "SEVERITY", "SURE", "LINE"], &rows);
    }
}

/// Places count characters, as whoever reads JSON does.
fn as_json(text: &str, finding: &Finding) -> Value {
    let characters = |at: usize| text.get(..at).unwrap_or(text).chars().count();
    json!({
        "kind": finding.kind,
        "severity": finding.severity,
        "confidence": f64::from(finding.confidence) / 100.0,
        "start": characters(finding.place.start),
        "end": characters(finding.place.end),
    })
}

fn line_and_column(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    (line, before.rsplit('\n').next().unwrap_or_default().chars().count() + 1)
}

fn read(file: &Path) -> Result<String, Failure> {
    if file != Path::new("-") {
        return Ok(files::read_text(file, TEXT_BYTES_MAX)?);
    }
    let mut bytes = Vec::new();
    std::io::stdin().lock().take(TEXT_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > TEXT_BYTES_MAX {
        return Err(Failure::new(format!("the text has more than {} MiB", TEXT_BYTES_MAX >> 20)));
    }
    String::from_utf8(bytes).map_err(|e| {
        let at = e.utf8_error().valid_up_to();
        Failure::new(format!("the input is not UTF-8 text (byte {at})"))
    })
}
