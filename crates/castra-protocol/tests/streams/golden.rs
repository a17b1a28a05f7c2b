//! Streams as they come, and as each caller gets them: `tests/data/streams/FORM-NAME.in` and
//! `FORM-NAME.API.out`. The last line of an expected file is not sent; it says what the summary says.
//! `CASTRA_BLESS=1` writes the expected files anew, to be read before they are committed.

use std::path::{Path, PathBuf};

use castra_core::StreamMode;
use castra_protocol::model::{
    Api, Form,
    stream::{CallVerdict, StreamEnd, Summary},
};

use crate::harness::{facts, options, read, run, said};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/streams")
}

fn form(name: &str) -> Form {
    match name.split('-').next() {
        Some("chat") => Form::OpenAiChat,
        Some("responses") => Form::OpenAiResponses,
        Some("messages") => Form::AnthropicMessages,
        Some("gemini") => Form::Gemini,
        other => panic!("{other:?} is no form"),
    }
}

fn shown(summary: &Summary) -> String {
    let end = match &summary.end {
        StreamEnd::Complete => "complete".to_owned(),
        StreamEnd::Failed(error) => format!("failed ({})", error.code()),
    };
    let calls: Vec<String> = summary
        .calls
        .iter()
        .map(|(call, verdict)| {
            let verdict = match verdict {
                Some(CallVerdict::Release) => "released",
                Some(CallVerdict::Rewrite(_)) => "rewritten",
                Some(CallVerdict::Refuse(_)) => "refused",
                None => "undecided",
            };
            format!("{} {} {verdict}", call.name, call.arguments)
        })
        .collect();
    format!(
        "# {end}; stop {:?}; {:?} {}+{}; found {:?}; calls {calls:?}; said {:?}\n",
        summary.stop,
        summary.usage_source,
        summary.usage.input_tokens,
        summary.usage.output_tokens,
        summary.findings,
        said(summary),
    )
}

#[test]
fn streams_leave_as_the_files_say() {
    let bless = std::env::var_os("CASTRA_BLESS").is_some();
    let mut names: Vec<String> = std::fs::read_dir(folder())
        .expect("the folder")
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.strip_suffix(".in").map(str::to_owned))
        .collect();
    names.sort();
    assert!(names.len() > 10, "{names:?}");
    for name in names {
        let bytes = std::fs::read(folder().join(format!("{name}.in"))).expect("bytes");
        for api in [Api::Chat, Api::Messages, Api::Responses] {
            let facts = facts(form(&name), api);
            let (out, summary) = run(&facts, options(StreamMode::Window), [&*bytes]);
            read(api, &out);
            let by_bytes = run(&facts, options(StreamMode::Window), bytes.chunks(1)).0;
            assert_eq!(String::from_utf8_lossy(&by_bytes), String::from_utf8_lossy(&out), "{name}: split");
            let actual = format!("{}{}", String::from_utf8(out).expect("UTF-8"), shown(&summary));
            let path = folder().join(format!("{name}.{}.out", api.as_str()));
            if bless {
                std::fs::write(&path, &actual).expect("written");
            }
            let expected = std::fs::read_to_string(&path).unwrap_or_default();
            assert_eq!(actual, expected, "{}", path.display());
        }
    }
}
