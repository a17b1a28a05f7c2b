//! Which version answers, what is tried when one does not, and what a provider gets to see.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use castra_core::{AgentName, Digest, Limits, ModelName, RefusalCode, Timestamp};
use castra_gateway::{
    metrics::Metrics,
    model::{
        Answered, AskError, Asker, BreakerSettings, Key, ModelParts, OpenAiForm, Provider, ProviderError,
        RouteError, RouteSettings, Routes, VersionFacts, VersionParts, Wire, list_models,
    },
};
use castra_net::client::{ClientSettings, HttpClient};
use castra_store::{Promotions, Share};
use http::HeaderMap;
use http_body_util::BodyExt;
use tokio::time::Instant;

use crate::server::{Server, Step, answer_with, json, piece, stream};

const KEY: &str = "s3cret-provider-key";

fn name() -> ModelName {
    ModelName::new("assistant").unwrap()
}

fn agent(name: &str) -> AgentName {
    AgentName::new(name).unwrap()
}

fn client(limits: &Limits) -> HttpClient {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    HttpClient::new(ClientSettings::from(limits), &tls)
}

fn version(id: &str, server: &Server) -> VersionParts {
    VersionParts {
        id: id.into(),
        facts: VersionFacts {
            provider: Provider::OpenAiCompatible,
            base_url: format!("http://{}/v1", server.address).parse().unwrap(),
            model: "m".into(),
            parameters: serde_json::Map::new(),
            system: None,
            tools: None,
            max_output_tokens: None,
            responses: false,
            form: OpenAiForm::Chat,
            api_version: None,
        },
        key: Key::new(Provider::OpenAiCompatible, KEY),
        headers: Vec::new(),
        client: client(&Limits::default()),
        weight: 0,
        timeout: None,
        fingerprint: 1,
    }
}

fn settings() -> RouteSettings {
    RouteSettings {
        inspection: None,
        fallback: None,
        retries: 2,
        retry_after_max: Duration::from_secs(10),
        timeout: Duration::from_secs(30),
        breaker: BreakerSettings::default(),
    }
}

/// Routes with one route, under a chance that goes through all numbers alike.
fn routes(versions: Vec<VersionParts>, settings: RouteSettings) -> (Routes, Arc<Metrics>) {
    let metrics = Arc::new(Metrics::new("0"));
    let limits = Limits { stream_idle_max: Duration::from_secs(5), ..Limits::default() };
    let next = AtomicU64::new(0);
    let random = move || next.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
    let routes =
        Routes::new(Arc::new(limits), metrics.clone(), || Timestamp(1_795_557_868_000_000), Arc::new(random));
    routes.replace(vec![ModelParts { name: name(), settings, versions }]);
    (routes, metrics)
}

fn wire() -> Wire {
    Wire { endpoint: "chat/completions".into(), body: "{\"model\":\"m\"}".into() }
}

async fn ask(routes: &Routes, run: Option<&str>) -> Result<Answered, RouteError> {
    ask_with(routes, run, &HeaderMap::new()).await
}

async fn ask_with(routes: &Routes, run: Option<&str>, headers: &HeaderMap) -> Result<Answered, RouteError> {
    let agent = agent("tester");
    let attempts = routes.pick(&name(), &Asker { agent: &agent, run, continues: None })?;
    attempts.ask(headers, false, |_| Ok::<_, ()>(wire())).await.map_err(|error| match error {
        AskError::Route(error) => error,
        AskError::Prepare(()) => panic!("it can be prepared"),
    })
}

async fn text(answered: Answered) -> String {
    String::from_utf8(answered.body.collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

async fn good(text: &'static str) -> Server {
    Server::start(move |_| json(text)).await
}

async fn status(status: &'static str, headers: &'static [(&'static str, &'static str)]) -> Server {
    Server::start(move |_| answer_with(status, headers, "{\"error\":{\"message\":\"theirs\"}}")).await
}

fn share(version: &str, weight: u32) -> Share {
    Share { version: version.into(), weight, digest: Digest([0; 32]) }
}

#[tokio::test]
async fn the_key_goes_out_and_the_callers_credential_does_not() {
    let server = good("{}").await;
    let mut anthropic = version("v1", &server);
    anthropic.facts.provider = Provider::Anthropic;
    anthropic.key = Key::new(Provider::Anthropic, KEY);
    let (routes, _) = routes(vec![anthropic], settings());
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("authorization", "Bearer castra_the-callers-own"),
        ("x-api-key", "castra_the-callers-own"),
        ("cookie", "session=1"),
        ("castra-run", "r1"),
        ("traceparent", "00-1-1-00"),
        ("openai-organization", "org-1"),
        ("openai-beta", "assistants=v2"),
        ("anthropic-beta", "context-1m"),
        ("host", "evil.example"),
    ] {
        headers.insert(name, value.parse().unwrap());
    }
    ask_with(&routes, None, &headers).await.unwrap();
    let seen = &server.requests()[0];
    let mut names: Vec<&str> = seen.headers.keys().map(String::as_str).collect();
    names.sort_unstable();
    let expected = [
        "accept",
        "anthropic-beta",
        "anthropic-version",
        "content-length",
        "content-type",
        "host",
        "user-agent",
        "x-api-key",
    ];
    assert_eq!(names, expected);
    assert_eq!((seen.header("x-api-key"), seen.header("anthropic-version")), (KEY, "2023-06-01"));
    assert_eq!(seen.header("host"), server.address.to_string());
    assert!(!format!("{:?}", version("v1", &server)).contains(KEY));
}

#[tokio::test]
async fn another_version_answers_when_one_cannot() {
    let after = good("{\"from\":2}").await;
    let nobody = {
        let gone = good("").await;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        Server { address: listener.local_addr().unwrap(), ..gone }
    };
    let broken = Server::start(|_| vec![Step::Close]).await;
    let empty = Server::start(|_| answer_with("200 OK", &[], "")).await;
    let compressed = Server::start(|_| answer_with("200 OK", &[("content-encoding", "gzip")], "x")).await;
    for (server, reason) in [
        (&nobody, "unreachable"),
        (&broken, "broken"),
        (&empty, "broken"),
        (&compressed, "nonsense"),
        (&status("500 Internal Server Error", &[]).await, "server-error"),
        (&status("529 Overloaded", &[]).await, "server-error"),
        (&status("429 Too Many Requests", &[("retry-after", "3600")]).await, "rate-limited"),
        (&status("401 Unauthorized", &[]).await, "key-refused"),
        (&status("302 Found", &[("location", "http://evil.example/")]).await, "nonsense"),
    ] {
        let mut versions = vec![version("v1", server), version("v2", &after)];
        versions[0].weight = 1;
        let settings = RouteSettings { fallback: Some(vec!["v2".into()]), ..settings() };
        let (routes, metrics) = routes(versions, settings);
        let answered = ask(&routes, None).await.unwrap_or_else(|e| panic!("{reason}: {e}"));
        assert_eq!((answered.version.id(), answered.tries), ("v2", 2), "{reason}");
        assert_eq!(text(answered).await, "{\"from\":2}");
        let failed = format!(
            "castra_model_failures_total{{route=\"assistant\",version=\"v1\",reason=\"{reason}\"}} 1"
        );
        let page = metrics.render();
        assert!(page.contains(&failed), "{failed}\n{page}");
        assert!(page.contains("castra_model_requests_total{route=\"assistant\",version=\"v2\"} 1"));
    }
}

#[tokio::test]
async fn what_the_caller_did_wrong_is_not_tried_elsewhere() {
    let refused = status("400 Bad Request", &[]).await;
    let other = good("{}").await;
    let fallback = RouteSettings { fallback: Some(vec!["v2".into()]), ..settings() };
    let (routes, _) = routes(vec![version("v1", &refused), version("v2", &other)], fallback);
    let answered = ask(&routes, None).await.unwrap();
    assert_eq!((answered.head.status.as_u16(), answered.version.id()), (400, "v1"));
    assert!(text(answered).await.contains("theirs"));
    assert_eq!(other.requests().len(), 0);
}

#[tokio::test]
async fn nothing_is_tried_again_once_bytes_came() {
    let half = Server::start(|_| vec![stream(), piece("data: {}\n\n"), Step::Close]).await;
    let other = good("{}").await;
    let (routes, metrics) = routes(vec![version("v1", &half), version("v2", &other)], settings());
    let answered = ask(&routes, None).await.unwrap();
    let (_, _, mut body, afterwards) = answered.into_parts();
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "data: {}\n\n");
    let error = body.frame().await.unwrap().unwrap_err();
    assert!(matches!(error, ProviderError::Broken(_)), "{error}");
    afterwards.failed(&error);
    assert_eq!((half.requests().len(), other.requests().len()), (1, 0));
    let failed = "castra_model_failures_total{route=\"assistant\",version=\"v1\",reason=\"broken\"} 1";
    assert!(metrics.render().contains(failed));
}

#[tokio::test(start_paused = true)]
async fn silence_is_a_failure_before_the_answer_and_within_it() {
    let silent = Server::start(|_| vec![Step::Hold]).await;
    let headless = Server::start(|_| vec![stream(), Step::Hold]).await;
    let stalls = Server::start(|_| vec![stream(), piece("data: {}\n\n"), Step::Hold]).await;
    let mut versions = vec![version("v1", &silent), version("v2", &headless), version("v3", &stalls)];
    for version in &mut versions {
        version.timeout = Some(Duration::from_secs(3));
    }
    let fallback = Some(vec!["v2".into(), "v3".into()]);
    let (routes, _) = routes(versions, RouteSettings { fallback, ..settings() });
    let start = Instant::now();
    let mut answered = ask(&routes, None).await.unwrap();
    assert_eq!((answered.version.id(), answered.tries), ("v3", 3));
    assert!(start.elapsed() >= Duration::from_secs(6) && start.elapsed() < Duration::from_secs(9));
    assert!(answered.body.frame().await.unwrap().is_ok());
    let error = answered.body.frame().await.unwrap().unwrap_err();
    assert_eq!(error, ProviderError::Silent { after: Duration::from_secs(5) });
}

#[tokio::test(start_paused = true)]
async fn all_attempts_together_have_their_time() {
    let silent = Server::start(|_| vec![Step::Hold]).await;
    let settings = RouteSettings { timeout: Duration::from_secs(4), ..settings() };
    let (routes, _) = routes(vec![version("v1", &silent)], settings);
    let start = Instant::now();
    let error = ask(&routes, None).await.unwrap_err();
    assert_eq!(error.refusal().code, RefusalCode::UpstreamTimeout, "{error}");
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn retry_after_is_waited_for_within_bounds() {
    let calls = Arc::new(AtomicUsize::new(0));
    let server = Server::start({
        let calls = calls.clone();
        move |_| match calls.fetch_add(1, Ordering::SeqCst) {
            0 => answer_with("429 Too Many Requests", &[("retry-after", "7")], "{}"),
            1 => answer_with("503 Busy", &[("retry-after", "Tue, 24 Nov 2026 22:04:33 GMT")], "{}"),
            _ => json("{}"),
        }
    })
    .await;
    let (routes, _) = routes(vec![version("v1", &server)], settings());
    let start = Instant::now();
    let answered = ask(&routes, None).await.unwrap();
    assert_eq!(answered.tries, 3);
    // 7 seconds, and until a date that is 5 seconds from the clock's time.
    let waited = start.elapsed().as_secs_f64();
    assert!((11.9..13.0).contains(&waited), "{waited}");

    let far = status("429 Too Many Requests", &[("retry-after", "11")]).await;
    let (routes, _) = self::routes(vec![version("v1", &far)], settings());
    let error = ask(&routes, None).await.unwrap_err();
    assert_eq!(far.requests().len(), 1);
    let refusal = error.refusal();
    assert_eq!((refusal.code, refusal.retry_secs()), (RefusalCode::Busy, Some(11)));
    let answer = error.provider_answer().unwrap();
    assert_eq!(answer.status.as_u16(), 429);
    assert!(answer.body.starts_with(b"{\"error\""));
    assert!(
        !refusal.to_string().contains("theirs") && !refusal.to_string().contains("127.0.0.1"),
        "{refusal}"
    );
}

#[tokio::test(start_paused = true)]
async fn the_breaker_leaves_a_sick_version_alone_and_tries_it_again() {
    let well = Arc::new(AtomicUsize::new(0));
    let server = Server::start({
        let well = well.clone();
        move |_| match well.load(Ordering::SeqCst) {
            0 => answer_with("500 Internal Server Error", &[], "{}"),
            _ => json("{}"),
        }
    })
    .await;
    let breaker =
        BreakerSettings { failures: 2, rest: Duration::from_secs(30), rest_max: Duration::from_secs(300) };
    let settings = RouteSettings { retries: 0, breaker, ..settings() };
    let (routes, _) = routes(vec![version("v1", &server)], settings);
    for _ in 0..2 {
        assert!(matches!(ask(&routes, None).await, Err(RouteError::Failed { .. })));
    }
    let error = ask(&routes, None).await.unwrap_err();
    assert!(matches!(error, RouteError::Resting { retry_in: Some(_), .. }), "{error}");
    assert_eq!(server.requests().len(), 2, "nothing was sent");
    assert!(error.refusal().retry_secs().unwrap() <= 30);
    well.store(1, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(31)).await;
    assert!(ask(&routes, None).await.is_ok());
    assert!(ask(&routes, None).await.is_ok());
}

#[tokio::test]
async fn a_call_that_is_given_up_does_not_keep_the_breaker_half_open() {
    let server = Server::start(|seen| match seen.header("anthropic-beta") {
        "slow" => vec![Step::Hold],
        "bad" => answer_with("500 Internal Server Error", &[], "{}"),
        _ => json("{}"),
    })
    .await;
    let mut parts = version("v1", &server);
    parts.facts.provider = Provider::Anthropic;
    let breaker = BreakerSettings { failures: 1, rest: Duration::ZERO, rest_max: Duration::ZERO };
    let (routes, _) = routes(vec![parts], RouteSettings { retries: 0, breaker, ..settings() });
    let with =
        |beta: &str| HeaderMap::from_iter([("anthropic-beta".parse().unwrap(), beta.parse().unwrap())]);
    assert!(ask_with(&routes, None, &with("bad")).await.is_err());
    let slow = with("slow");
    tokio::select! {
        _ = ask_with(&routes, None, &slow) => panic!("it holds"),
        () = async { while server.requests().len() < 2 { tokio::task::yield_now().await } } => {}
    }
    assert!(ask(&routes, None).await.is_ok(), "the next call is the probe");
}

#[tokio::test]
async fn shares_are_kept_and_a_run_keeps_its_version() {
    let (one, two) = (good("1").await, good("2").await);
    let mut versions = vec![version("v1", &one), version("v2", &two)];
    (versions[0].weight, versions[1].weight) = (3, 1);
    let (routes, _) = routes(versions, settings());
    let agent = agent("tester");
    let pick = |run: Option<&str>| {
        let attempts = routes.pick(&name(), &Asker { agent: &agent, run, continues: None }).unwrap();
        attempts.candidates()[0].id().to_owned()
    };
    let mut counts = BTreeMap::new();
    for _ in 0..4000 {
        *counts.entry(pick(None)).or_insert(0) += 1;
    }
    assert!((2800..3200).contains(&counts["v1"]), "{counts:?}");
    let runs: Vec<String> = (0..1000).map(|n| format!("run-{n}")).collect();
    let first: Vec<String> = runs.iter().map(|run| pick(Some(run))).collect();
    let with_v1 = first.iter().filter(|v| *v == "v1").count();
    assert!((680..820).contains(&with_v1), "{with_v1}");
    assert_eq!(first, runs.iter().map(|run| pick(Some(run))).collect::<Vec<_>>());
    // A larger share of v2 moves runs to it and none away from it.
    routes.promoted(Promotions::default().with(name(), vec![share("v1", 1), share("v2", 1)]));
    for (run, before) in runs.iter().zip(&first) {
        assert!(before == "v1" || pick(Some(run)) == "v2", "{run}");
    }
}

#[tokio::test]
async fn promotions_and_reloads_count_from_the_next_call_on() {
    let held = Server::start(|_| {
        vec![stream(), piece("data: 1\n\n"), Step::Pause(200), piece("data: 2\n\n"), crate::server::end()]
    })
    .await;
    let two = good("{\"from\":2}").await;
    let (routes, _) = routes(vec![version("v1", &held), version("v2", &two)], settings());
    let under_way = ask(&routes, None).await.unwrap();
    assert_eq!(under_way.version.id(), "v1", "the first serves when nothing says another");
    routes.promoted(Promotions::default().with(name(), vec![share("v2", 100)]));
    assert_eq!(ask(&routes, None).await.unwrap().version.id(), "v2");
    assert_eq!(text(under_way).await, "data: 1\n\ndata: 2\n\n", "a stream is not dropped");
    // Taken back.
    routes.promoted(Promotions::default());
    assert_eq!(ask(&routes, None).await.unwrap().version.id(), "v1");

    // What serves is gone from the configuration: that is said, and nothing else steps in.
    routes.promoted(Promotions::default().with(name(), vec![share("v2", 100)]));
    let before = ask(&routes, None).await.unwrap().version;
    let parts = |versions| vec![ModelParts { name: name(), settings: settings(), versions }];
    routes.replace(parts(vec![version("v1", &held)]));
    let error = ask(&routes, None).await.unwrap_err();
    assert!(error.to_string().contains("v2 was promoted and is not configured"), "{error}");
    routes.replace(Vec::new());
    assert!(matches!(ask(&routes, None).await, Err(RouteError::Unknown { .. })));
    assert_eq!(routes.names(), Vec::<ModelName>::new());
    // A version that is as before is the same one; one that changed is not.
    routes.replace(parts(vec![version("v2", &two)]));
    let now = ask(&routes, None).await.unwrap().version;
    assert!(!Arc::ptr_eq(&before, &now));
    routes.replace(parts(vec![version("v2", &two)]));
    assert!(Arc::ptr_eq(&now, &ask(&routes, None).await.unwrap().version));
    let changed = VersionParts { fingerprint: 2, ..version("v2", &two) };
    routes.replace(parts(vec![changed]));
    assert!(!Arc::ptr_eq(&now, &ask(&routes, None).await.unwrap().version));
}

#[tokio::test]
async fn a_conversation_goes_on_where_it_is_kept_and_for_whom_it_is() {
    let (one, two) = (good("1").await, good("2").await);
    let (routes, _) = routes(vec![version("v1", &one), version("v2", &two)], settings());
    let (agent, other) = (agent("tester"), agent("other"));
    let pick = |agent, continues| routes.pick(&name(), &Asker { agent, run: None, continues });
    let first = pick(&agent, None).unwrap().candidates()[0].clone();
    routes.gave(&agent, "resp_1", &name(), &first);
    routes.promoted(Promotions::default().with(name(), vec![share("v2", 100)]));
    let attempts = pick(&agent, Some("resp_1")).unwrap();
    let ids: Vec<&str> = attempts.candidates().iter().map(|v| v.id()).collect();
    assert_eq!(ids, ["v1"], "nobody else knows the conversation");
    assert_eq!(pick(&agent, Some("resp_unknown")).unwrap().candidates()[0].id(), "v2");
    assert!(matches!(pick(&other, Some("resp_1")), Err(RouteError::ForeignConversation)));
}

#[tokio::test]
async fn what_a_stand_in_cannot_say_is_passed_over() {
    let (sick, other, third) =
        (status("500 Internal Server Error", &[]).await, good("2").await, good("3").await);
    let versions = vec![version("v1", &sick), version("v2", &other), version("v3", &third)];
    let fallback = Some(vec!["v2".into(), "v3".into()]);
    let (routes, _) = routes(versions, RouteSettings { fallback, ..settings() });
    let agent = agent("tester");
    let asker = Asker { agent: &agent, run: None, continues: None };
    let but = async |impossible: &'static str| {
        let prepare =
            |v: &castra_gateway::model::Version| if v.id() == impossible { Err(()) } else { Ok(wire()) };
        routes.pick(&name(), &asker).unwrap().ask(&HeaderMap::new(), false, prepare).await
    };
    assert_eq!(but("v2").await.unwrap().version.id(), "v3");
    assert!(matches!(but("v1").await, Err(AskError::Prepare(()))));
    assert_eq!(other.requests().len(), 0);
}

#[tokio::test]
async fn endpoints_stay_at_the_configured_host() {
    let server = good("{}").await;
    let mut parts = version("v1", &server);
    parts.facts.provider = Provider::Azure;
    parts.facts.api_version = Some("2024-10-21".into());
    let (routes, _) = routes(vec![parts.clone()], RouteSettings { retries: 0, ..settings() });
    let agent = agent("tester");
    let asker = Asker { agent: &agent, run: None, continues: None };
    let at = async |endpoint: &str| {
        let wire = Wire { endpoint: endpoint.into(), ..wire() };
        let attempts = routes.pick(&name(), &asker).unwrap();
        attempts.ask(&HeaderMap::new(), false, |_| Ok::<_, ()>(wire.clone())).await.is_ok()
    };
    assert!(at("chat/completions").await && at("models/m:generate?alt=sse").await);
    for bad in
        ["/evil.example/", "../admin", "a/../../b", "@evil.example/x", "a b", "", "a//b", "x\r\nhost: evil"]
    {
        let before = server.requests().len();
        let asked = at(bad).await;
        let seen = server.requests();
        assert!(!asked || seen.len() > before, "{bad}");
        assert!(seen.iter().all(|s| s.header("host") == server.address.to_string()), "{bad}");
    }
    list_models(&parts, Duration::from_secs(5)).await.unwrap();
}
