//! Pages for people: made here, without scripts, with one style sheet and nothing from elsewhere.

use std::{fmt, sync::Arc};

use axum::{
    extract::State,
    response::{Html, IntoResponse},
};
use http::{HeaderMap, header};

use crate::{Shared, guard::is_operator};

/// Puts a page together. `body` is HTML; text that comes from outside goes in through [`Text`].
pub(crate) fn page(title: &str, body: fmt::Arguments<'_>) -> Html<String> {
    let title = Text(title);
    Html(format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>{title} · Castra</title>\n\
         <link rel=\"stylesheet\" href=\"/style.css\">\n</head>\n<body>\n<main>\n<h1>{title}</h1>\n{body}</main>\n\
         </body>\n</html>\n"
    ))
}

/// Text within HTML or within a quoted attribute.
pub(crate) struct Text<'a>(pub(crate) &'a str);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            match c {
                '&' => f.write_str("&amp;"),
                '<' => f.write_str("&lt;"),
                '>' => f.write_str("&gt;"),
                '"' => f.write_str("&quot;"),
                '\'' => f.write_str("&#39;"),
                other => fmt::Write::write_char(f, other),
            }?;
        }
        Ok(())
    }
}

pub(crate) async fn style() -> impl IntoResponse {
    let headers =
        [(header::CONTENT_TYPE, "text/css; charset=utf-8"), (header::CACHE_CONTROL, "max-age=3600")];
    (headers, include_str!("style.css"))
}

/// What this is, whether it works, and where to go.
pub(crate) async fn home(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Html<String> {
    let checks = shared.view.checks();
    let ready = !checks.is_empty() && checks.iter().all(|check| check.ok);
    let (class, word) = if ready {
        ("good", "It can decide and record.")
    } else {
        ("bad", "It is not ready, so it refuses.")
    };
    let tells = shared.config.open || is_operator(&shared, &headers);
    let list: String = checks.iter().filter(|_| tells).map(check_item).collect();
    page(
        "Castra",
        format_args!(
            "<p>This is the operator interface of a Castra gate: what agents try goes through the gate, is \
             identified, decided by policy and recorded before it happens.</p>\n\
             <p class=\"{class}\">{word}</p>\n<ul>\n{list}</ul>\n\
             <h2>Here</h2>\n<ul>\n\
             <li><a href=\"/healthz\">/healthz</a> and <a href=\"/readyz\">/readyz</a>: alive, ready</li>\n\
             <li><a href=\"/metrics\">/metrics</a>: for Prometheus</li>\n\
             <li><a href=\"/log/checkpoint\">/log/</a>: the log, for <code>castra log verify</code> and other \
             verifiers of tlog-tiles</li>\n\
             <li><code>/api/v1/</code> status, agents, servers, log/records: with an operator token</li>\n</ul>\n\
             <h2>On the command line</h2>\n<ul>\n\
             <li><code>castra agent add NAME</code>: let an agent in</li>\n\
             <li><code>castra log tail</code>: see what happens</li>\n\
             <li><code>castra doctor</code>: find what is wrong, and how to mend it</li>\n</ul>\n"
        ),
    )
}

fn check_item(check: &crate::Check) -> String {
    let class = if check.ok { "good" } else { "bad" };
    format!("<li><span class=\"{class}\">{}</span> {}</li>\n", Text(check.name), Text(&check.reason))
}
