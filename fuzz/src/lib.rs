//! What the fuzz targets do with their bytes: call one parser, and check what must hold for all that
//! it accepts. None may panic, hang, or take memory beyond its limits.
//!
//! The ledger's parsers bring their own functions (`castra_ledger::fuzz`), and so does the program
//! (`castra::fuzz`).

use std::sync::{Arc, LazyLock};

use castra_core::{Effect, StreamMode, TextScanner, Timestamp};
use castra_flow::{Content, Coverage, Manifest, NoMarks, Returned, Run, Tool, ToolManifest};
use castra_identity::{
    Issuer, IssuerConfig, Jwks, NameRule, SiteRules, TrustDomain,
    certificate::read_peer,
    jwt::{issuer_of, verify},
    oauth::canonical_resource,
    token::{is_intact, kind_of},
};
use castra_inspect::{Inspector, JsonOptions, MaskedJson, Settings};
use castra_protocol::{
    a2a::{self, AgentCard, Binding, HttpRequest, Method},
    json,
    mcp::{
        self, Id, ListKind, Message, ParseLimits, Revision, Splice,
        bridge::{self, ClientFacts, LegacyAnswer, LegacyStep, ModernStep, ServerFacts},
        headers::{self, ParamHeaders},
        lists::{self, FederatedCursor},
    },
    model::{
        Api, Asked, Form, ModelLimits, RequestFacts, Target, answer, parse_request, prepare, provider_error,
        replace_calls,
        stream::{CallVerdict, Framing, Step, StreamEngine, StreamLimits, StreamOptions},
    },
    sse,
};

const DEPTH_MAX: usize = 64;

/// The strict JSON scanner accepts nothing that a common parser refuses.
pub fn json(data: &[u8]) {
    if let Ok(text) = json::check(data, DEPTH_MAX) {
        let parsed = serde_json::from_str::<serde_json::Value>(text);
        assert!(parsed.is_ok() || is_out_of_range(&parsed), "accepted what serde_json refuses: {parsed:?}");
    }
}

/// The canonical form is JSON that means the same, and its own canonical form.
pub fn canonical(data: &[u8]) {
    let Ok(once) = castra_protocol::canonical(data) else { return };
    assert_eq!(castra_protocol::canonical(once.as_bytes()).as_deref(), Ok(once.as_str()));
    let meant = |text: &[u8]| serde_json::from_slice::<serde_json::Value>(text);
    if let (Ok(before), Ok(after)) = (meant(data), meant(once.as_bytes())) {
        assert_eq!(before, after);
    }
}

/// A manifest that is read and written again says the same.
pub fn flow_manifest(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(manifest) = Manifest::parse(text) {
        let again = manifest.to_toml().expect("a manifest can be written");
        assert_eq!(Manifest::parse(&again).expect("what was written can be read"), manifest);
    }
}

/// Whatever a tool returns and whatever a call says: the run stays tainted and within its memory, spans lie within
/// the answer, and a restart changes nothing.
pub fn flow_result(data: &[u8]) {
    static MANIFEST: LazyLock<ToolManifest> = LazyLock::new(|| ToolManifest {
        attested: vec!["id".into(), "sender".into(), "amount".into()],
        keys: vec!["name".into()],
        object: Some("file".into()),
        ..ToolManifest::default()
    });
    let text = String::from_utf8_lossy(data);
    let value = serde_json::from_slice::<serde_json::Value>(data);
    let content = value.as_ref().map_or(Content::Text(&text), Content::Json);
    let tool = Tool {
        id: "a/b",
        described: true,
        effect: Effect::Act,
        external: true,
        manifest: &MANIFEST,
        schema: None,
    };
    let mut run = Run::new(Coverage::Full);
    run.user_said(&text);
    let arguments = value.as_ref().cloned().unwrap_or_default();
    run.returned(&tool, &arguments, Returned { content, is_error: false, record: 0 }, &NoMarks);
    run.user_said(&text);
    run.went(&tool, &arguments, false);
    assert!(run.facts().tainted && run.size() < 2 << 20);
    let judgement = run.judge(&tool, &arguments);
    let restored = Run::restore(&serde_json::to_vec(&run).expect("a run can be written"));
    assert_eq!(restored.judge(&tool, &arguments), judgement);
    assert!(run.answer(&text).iter().all(|span| text.get(span.place.clone()).is_some()));
}

/// However a text is cut, the masks are those of the whole; and masked JSON is JSON still.
pub fn inspect(data: &[u8]) {
    static INSPECTOR: LazyLock<Inspector> =
        LazyLock::new(|| Inspector::new(&Settings::default()).expect("the built-in list compiles"));
    if let Ok(Some(MaskedJson { bytes: Some(masked), .. })) =
        INSPECTOR.mask_json(data, &JsonOptions::default())
    {
        assert!(INSPECTOR.mask_json(&masked, &JsonOptions::default()).is_ok(), "masked JSON is none");
    }
    let Some((&size, text)) = data.split_first() else { return };
    let Ok(text) = std::str::from_utf8(text) else { return };
    let whole = INSPECTOR.mask_text(text).and_then(|masked| masked.text).unwrap_or_else(|| text.to_owned());
    let (mut scanner, mut out, mut piece) = (INSPECTOR.scanner(), String::new(), String::new());
    for c in text.chars() {
        piece.push(c);
        if piece.len() > usize::from(size) {
            scanner.push(&piece, &mut out);
            piece.clear();
        }
    }
    scanner.push(&piece, &mut out);
    scanner.finish(&mut out);
    assert_eq!(out, whole, "cut into pieces of {size} bytes");
}

/// serde_json refuses numbers beyond a double; they are JSON all the same.
fn is_out_of_range(parsed: &serde_json::Result<serde_json::Value>) -> bool {
    parsed.as_ref().is_err_and(|e| e.to_string().contains("out of range"))
}

const APIS: [Api; 5] = [Api::Chat, Api::Responses, Api::Embeddings, Api::Messages, Api::CountTokens];
const FORMS: [Form; 4] = [Form::OpenAiChat, Form::OpenAiResponses, Form::AnthropicMessages, Form::Gemini];

/// A request that is not changed keeps its bytes, and whatever is sent to a provider is strict JSON.
pub fn model_request(data: &[u8]) {
    for api in APIS {
        let Ok(request) = parse_request(api, data, &ModelLimits::default()) else { continue };
        let _ = request.input_estimate();
        let plain = Target {
            form: api.native_form(),
            compatible: false,
            model: &request.model,
            params: &[],
            output_max: None,
            system: None,
            tools: None,
            now: 0,
        };
        if let Ok(prepared) = prepare(&request, &plain)
            && (api != Api::Chat || !request.stream || request.usage_asked)
        {
            assert_eq!(&*prepared.body, data, "nothing had to change");
        }
        let params = [("temperature".into(), "0.5".into()), ("max_tokens".into(), "9".into())];
        for form in FORMS {
            let target = Target { form, model: "p", params: &params, system: Some("\"s\""), ..plain };
            if let Ok(prepared) = prepare(&request, &target) {
                assert!(
                    json::check(&prepared.body, json::DEPTH_CEILING).is_ok(),
                    "what is sent is strict JSON"
                );
            }
        }
    }
}

/// An answer is JSON for the caller, and no call is left in it when all were refused.
pub fn model_answer(data: &[u8]) {
    let limits = ModelLimits { depth_max: DEPTH_MAX, ..ModelLimits::default() };
    for api in APIS {
        for form in FORMS {
            let model = String::new();
            let (stream, usage_asked, created, asked) = (false, false, 0, asked(api));
            let facts = RequestFacts { api, form, model, stream, usage_asked, created, asked };
            let error = provider_error(&facts, 400, data);
            assert!(json::check(&error.body, json::DEPTH_CEILING).is_ok(), "an error is strict JSON");
            let Ok(read) = answer(&facts, data, &limits) else { continue };
            assert!(json::check(&read.body, json::DEPTH_CEILING).is_ok(), "what is answered is strict JSON");
            let verdicts = vec![Some("No.".to_string()); read.calls.len()];
            let roomy = ModelLimits { depth_max: json::DEPTH_CEILING, ..limits };
            let replaced = replace_calls(api, &read.body, &verdicts, &roomy);
            let left = replaced.as_deref().ok().and_then(|body| {
                let facts = RequestFacts { form: api.native_form(), ..facts };
                answer(&facts, body, &roomy).ok().map(|read| read.calls.len())
            });
            assert_eq!(left, Some(0), "all calls were replaced");
        }
    }
}

/// What makes an answer hold the most.
fn asked(api: Api) -> Asked {
    match api {
        Api::Responses => Asked::Response { repeated: "\"tools\":[]".into(), sealed_reasoning: true },
        Api::Embeddings => Asked::Vectors { base64: true },
        Api::Chat | Api::Messages | Api::CountTokens => Asked::Nothing,
    }
}

/// A message that is taken apart and put together again without changes is the same bytes, and one
/// whose id is replaced is still a message.
pub fn message(data: &[u8]) {
    let limits = ParseLimits { depth_max: DEPTH_MAX };
    let Ok(message) = mcp::parse(data, &limits) else { return };
    let (untouched, changed) = match &message {
        Message::Request(request) => {
            let _ = (request.action(), request.revision(), request.kind());
            let changed = Splice::request(request).id("7").set_meta("castra.dev/test", "{}").target("other");
            (Splice::request(request).finish(), changed.finish())
        }
        Message::Notification(notification) => {
            let changed = Splice::notification(notification).set_meta("castra.dev/test", "1");
            (Splice::notification(notification).finish(), changed.finish())
        }
        Message::Response(response) => {
            let changed = Splice::response(response).id("\"x\"").set_meta("castra.dev/test", "null");
            (Splice::response(response).finish(), changed.finish())
        }
    };
    assert_eq!(untouched, data, "nothing was changed");
    let room = ParseLimits { depth_max: DEPTH_MAX + 2 };
    assert!(
        mcp::parse(&changed, &room).is_ok(),
        "no message after a change: {:?}",
        String::from_utf8_lossy(&changed)
    );
}

/// Whatever message comes from either side, the other side gets a message. What a server says of itself
/// is read without a panic.
pub fn bridge(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = (ServerFacts::from_initialize_result(text), ServerFacts::from_discover_result(text));
    }
    let Ok(message) = mcp::parse(data, &ParseLimits { depth_max: DEPTH_MAX }) else { return };
    let room = ParseLimits { depth_max: DEPTH_MAX + 8 };
    for body in bridged(&message) {
        assert!(mcp::parse(&body, &room).is_ok(), "not a message: {:?}", String::from_utf8_lossy(&body));
    }
}

fn bridged(message: &Message<'_>) -> Vec<Vec<u8>> {
    let client = ClientFacts {
        revision: Revision::LATEST_LEGACY,
        info: None,
        capabilities: r#"{"elicitation":{"form":{},"url":{}},"sampling":{},"roots":{}}"#.to_owned(),
        log_level: None,
    };
    let capabilities = r#"{"tools":{"listChanged":true},"resources":{"subscribe":true}}"#.to_owned();
    let server =
        ServerFacts { info: Some("{}".to_owned()), capabilities, instructions: None, versions: vec![] };
    let mut out = Vec::new();
    if let LegacyStep::Forward(body) | LegacyStep::AnswerHere(body) =
        bridge::legacy_to_modern(message, &client)
    {
        out.push(body);
    }
    match message {
        Message::Request(request) => {
            if let ModernStep::Forward(body) = bridge::modern_to_legacy(request, &server, client.revision) {
                out.push(body);
            }
            let parked = std::slice::from_ref(request);
            out.extend(Id::from_raw("1").map(|id| bridge::input_required(parked, "state", id, &server)));
            out.extend(bridge::legacy_replies(parked, &[]));
        }
        Message::Response(response) => {
            for method in ["tools/list", "resources/read"] {
                out.push(bridge::legacy_answer_to_modern(response, method, &server, &client));
                match bridge::modern_answer_to_legacy(response, method, &client) {
                    Ok(LegacyAnswer::Final(body)) => out.push(body),
                    Ok(LegacyAnswer::NeedsInput(needed)) => {
                        out.extend(needed.requests.iter().map(|r| r.to_legacy("1", client.revision)));
                    }
                    Err(_) => {}
                }
            }
        }
        Message::Notification(notification) => {
            out.extend(bridge::modern_notification_to_legacy(notification).map(Into::into));
            out.extend(bridge::legacy_notification_to_modern(notification, None).map(Into::into));
        }
    }
    out
}

/// The headers that are built for a message are the headers that it is checked against.
pub fn headers(data: &[u8]) {
    let limits = ParseLimits { depth_max: DEPTH_MAX };
    if let Ok(Message::Request(request)) = mcp::parse(data, &limits)
        && let Ok(built) = headers::build(&request, None)
    {
        let lookup = |name: &str| built.iter().find(|h| h.name == name).map(|h| h.value.as_bytes());
        // A method or a version that is no header value has no header that could say it.
        let plain = |text: &str| {
            text.bytes().all(|b| (0x21..0x7f).contains(&b)) && headers::encode_value(text) == text
        };
        if plain(&request.method) && request.meta.protocol_version.as_deref().is_some_and(plain) {
            assert_eq!(headers::check(&request, lookup, None), Ok(()));
        }
    }
    if let Ok(text) = std::str::from_utf8(data) {
        let encoded = headers::encode_value(text);
        assert_eq!(
            headers::decode_value(encoded.as_bytes()).as_deref(),
            Some(text),
            "a value survives its header"
        );
        let _ = ParamHeaders::from_schema(text);
    }
    let _ = headers::decode_value(data);
}

/// Lists are cut without touching what stays.
pub fn list(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    for kind in [ListKind::Tools, ListKind::Resources, ListKind::ResourceTemplates, ListKind::Prompts] {
        if json::check(data, DEPTH_MAX).is_ok()
            && let Ok(page) = lists::read(kind, text)
        {
            let all = vec![lists::Keep::AsIs; page.items.len()];
            if page.faults.is_empty() {
                assert_eq!(lists::filter(&page, &all, false), text, "nothing was left out");
            }
            let none = vec![lists::Keep::Drop; page.items.len()];
            let emptied = lists::filter(&page, &none, true).into_owned();
            assert!(
                lists::read(kind, &emptied).is_ok_and(|p| p.items.is_empty()),
                "everything was left out: {emptied}"
            );
        }
    }
    if let Some(cursor) = FederatedCursor::decode(text) {
        assert_eq!(cursor.encode().and_then(|word| FederatedCursor::decode(&word)), Some(cursor));
    }
}

/// A stream gives the same events wherever its chunks end.
pub fn sse(data: &[u8]) {
    let Some((cut, stream)) = data.split_first() else { return };
    let cut = usize::from(*cut).min(stream.len());
    let (first, second) = stream.split_at(cut);
    assert_eq!(events(&[stream]), events(&[first, second]), "chunk borders do not matter");
}

type Seen = (String, String, Option<String>, Option<u64>);

fn events(chunks: &[&[u8]]) -> Vec<Seen> {
    let mut seen = Vec::new();
    let mut decoder = sse::Decoder::new(1024);
    for chunk in chunks {
        let fed = decoder.feed(chunk, |event| {
            seen.push((
                event.event.to_owned(),
                event.data.to_owned(),
                event.id.map(str::to_owned),
                event.retry_ms,
            ));
        });
        if fed.is_err() {
            break;
        }
    }
    seen
}

/// Tokens: the kind, the checksum, and no panic.
pub fn token(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        assert!(kind_of(text).is_some() || !is_intact(text), "only a token of ours has our checksum");
    }
}

/// A JWT that nobody signed with a known key is never taken.
pub fn jwt(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data)
        && let Ok(keys) = Jwks::parse(br#"{"keys":[]}"#)
    {
        let _ = issuer_of(text);
        let issuer = Issuer::new(IssuerConfig::new("https://issuer.example"), keys);
        let verified = verify(text, &issuer, "https://gate.example/mcp", Timestamp::from_secs(1_800_000_000));
        assert!(verified.is_err(), "there is no key to verify with");
    }
    let _ = Jwks::parse(data);
}

/// Certificates of clients, as a TLS library hands them over.
pub fn certificate(data: &[u8]) {
    if let Ok(domain) = TrustDomain::new("fuzz.example") {
        let _ = read_peer(data, &NameRule::Spiffe(domain));
    }
}

/// Host and Origin: only the gate's own pass.
pub fn site(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let listen = [std::net::IpAddr::from([127, 0, 0, 1])];
    if let Ok(rules) = SiteRules::new(&listen, &[], &[]) {
        if rules.check(Some(text), None).is_ok() {
            let text = text.to_ascii_lowercase();
            let own = ["localhost", "127.0.0.1", "[::1]"].iter().any(|host| text.starts_with(host));
            assert!(own, "{text:?} is not the gate's own");
        }
        let _ = rules.check(Some("localhost"), Some(text));
    }
    if let Some(canonical) = canonical_resource(text) {
        assert_eq!(
            canonical_resource(&canonical).as_deref(),
            Some(canonical.as_str()),
            "canonical is canonical"
        );
    }
}

/// Whatever a provider streams, in its form to any caller's: how it is cut into chunks does not matter
/// to the events that leave (comments may have left before it turned out to be no stream), every event
/// is JSON, and the stream ends.
pub fn stream(form: Form, data: &[u8]) {
    let [api, cut, stream @ ..] = data else { return };
    let api = [Api::Chat, Api::Messages, Api::Responses][usize::from(*api) % 3];
    let (first, second) = stream.split_at(usize::from(*cut).min(stream.len()));
    let whole = events_of(&streamed(form, api, &[stream]));
    for (_, data) in &whole {
        let known = data.is_empty() || data.trim_ascii() == "[DONE]";
        assert!(known || json::check(data.as_bytes(), DEPTH_MAX).is_ok(), "no JSON: {data}");
    }
    assert_eq!(whole, events_of(&streamed(form, api, &[first, second])), "chunk borders do not matter");
}

fn events_of(stream: &[u8]) -> Vec<(String, String)> {
    let mut events = Vec::new();
    let read =
        sse::Decoder::new(1 << 24).feed(stream, |event| events.push((event.event.into(), event.data.into())));
    assert!(read.is_ok(), "no events");
    events
}

fn streamed(form: Form, api: Api, chunks: &[&[u8]]) -> Vec<u8> {
    let model = "m".to_owned();
    let facts = RequestFacts {
        api,
        form,
        model,
        stream: true,
        usage_asked: true,
        created: 1,
        asked: Default::default(),
    };
    let options = StreamOptions {
        mode: StreamMode::Window,
        framing: Framing::Sse,
        limits: StreamLimits::default(),
        input_tokens: 1,
        id: "a".into(),
    };
    let mut engine = StreamEngine::new(&facts, options, Box::new(HoldsS::default));
    let (mut chunks, mut out) = (chunks.iter(), Vec::new());
    loop {
        match engine.next() {
            Step::Out(bytes) => out.extend_from_slice(&bytes),
            Step::Decide(call) if call.name.len() % 2 == 0 => engine.decided(CallVerdict::Release),
            Step::Decide(call) if call.arguments.len() % 2 == 0 => {
                engine.decided(CallVerdict::Rewrite("{\"x\":1}".into()));
            }
            Step::Decide(_) => engine.decided(CallVerdict::Refuse("No.".into())),
            Step::Need => match chunks.next() {
                Some(chunk) => engine.feed(chunk),
                None => engine.finish(),
            },
            Step::End(_) => return out,
        }
    }
}

/// Holds back an `s` at the end and masks `ss`.
#[derive(Default)]
struct HoldsS(bool);

impl TextScanner for HoldsS {
    fn push(&mut self, text: &str, out: &mut String) {
        for c in text.chars() {
            match (c, std::mem::take(&mut self.0)) {
                ('s', true) => out.push_str("[]"),
                ('s', false) => self.0 = true,
                (c, held) => {
                    out.push_str(if held { "s" } else { "" });
                    out.push(c);
                }
            }
        }
    }

    fn finish(&mut self, out: &mut String) {
        out.push_str(if std::mem::take(&mut self.0) { "s" } else { "" });
    }

    fn findings(&self) -> &[Arc<str>] {
        &[]
    }
}

/// Requests of A2A, in both bindings: what goes on as HTTP+JSON means what was read.
pub fn a2a_request(data: &[u8]) {
    let _ = a2a::parse_rpc(data, DEPTH_MAX);
    let Some((path, body)) = std::str::from_utf8(data).ok().and_then(|text| text.split_once('\n')) else {
        return;
    };
    let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
    for method in ["GET", "POST", "DELETE"] {
        let http = HttpRequest { method, path, query, body: body.as_bytes() };
        let _ = http.version();
        let Ok(request) = a2a::parse_http(&http, DEPTH_MAX) else { continue };
        let (method, target) = request.http_target();
        let (path, query) =
            target.split_once('?').map_or((&*target, None), |(path, query)| (path, Some(query)));
        let again = a2a::parse_http(&HttpRequest { method, path, query, body: body.as_bytes() }, DEPTH_MAX);
        assert!(
            again.is_ok_and(|again| (again.method, &again.task, &again.tenant, &again.push)
                == (request.method, &request.task, &request.tenant, &request.push)),
            "{target:?} means something else"
        );
    }
}

/// Answers and events of A2A: what is cut or changed is still an answer.
pub fn a2a_answer(data: &[u8]) {
    for method in Method::ALL {
        if let Ok(answer) = a2a::read_answer(Binding::HttpJson, method, None, data, DEPTH_MAX)
            && let Some(cut) = answer.keep_tasks(|_| false)
        {
            let again = a2a::read_answer(Binding::HttpJson, method, None, cut.as_bytes(), DEPTH_MAX);
            assert!(again.is_ok_and(|again| again.ids.is_empty()), "everything was left out: {cut}");
        }
    }
    let Ok(text) = std::str::from_utf8(data) else { return };
    for (binding, id) in [(Binding::HttpJson, None), (Binding::JsonRpc, Some("1"))] {
        let _ = a2a::read_error(binding, id, data, DEPTH_MAX);
        if let Ok(event) = a2a::read_event(binding, id, text, DEPTH_MAX)
            && let Some(artifact) = &event.artifact
        {
            let changed = event.with_texts(&vec!["x".to_owned(); artifact.texts.len()]);
            assert!(a2a::read_event(binding, id, &changed, DEPTH_MAX).is_ok(), "no event: {changed}");
        }
    }
}

/// Cards: the canonical form is a card with the same canonical form, and a rewritten one leads to the gate only.
pub fn a2a_card(data: &[u8]) {
    let Ok(card) = AgentCard::parse(data) else { return };
    let _ = card.signatures();
    if let Ok(canonical) = card.canonical() {
        let again = AgentCard::parse(canonical.as_bytes()).ok().and_then(|card| card.canonical().ok());
        assert_eq!(again, Some(canonical), "canonical is canonical");
    }
    let rewrite = a2a::card::Rewrite { url: "https://gate.example/a2a/x", mutual_tls: false, push: false };
    let shown = card.rewritten(&rewrite, |_| true);
    assert!(shown.supported_interfaces.iter().all(|i| i.url == rewrite.url) && !shown.is_signed());
}
