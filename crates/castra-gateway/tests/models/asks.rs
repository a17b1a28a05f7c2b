//! Whole answers on the path: passed on, inspected, recorded, paid for.

use castra_gateway::budget::{Covers, Limit, Per, Rule, Settings};
use serde_json::json;

use crate::{
    provider::{self, Says, Speaks, USAGE},
    rig::{Rig, Wish},
    server,
    stage::{ALL_ASKS, Asks, MASK, route, secret, wish},
};

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_passes_in_every_api_and_is_on_record() {
    for asks in ALL_ASKS {
        let server = provider::saying(asks.native(), Says::text(&["hello ", "there"])).await;
        let rig = Rig::start(wish(asks.native(), &server)).await;
        let got = asks.ask(&rig, "hi").await;
        assert_eq!(got.status, 200, "{asks:?}: {}", got.body);
        assert_eq!(asks.text(&got.json()), "hello there", "{asks:?}");
        assert_eq!(got.header("castra-model"), "assistant@v1");
        assert_eq!(got.header("castra-inspection"), "window");
        assert!(!got.header("castra-receipt").is_empty());
        // The provider sees its own name of the model.
        let seen = server.requests();
        assert!(
            seen[0].body.contains("\"real-model\"") && !seen[0].body.contains("assistant\","),
            "{}",
            seen[0].body
        );
        let intent = &rig.records_of("intent").await[0];
        assert_eq!(
            (&intent["effect"], &intent["resource"]),
            (&json!("read"), &json!("Model::\"assistant\""))
        );
        let outcome = &rig.outcomes(1).await[0];
        let model = &outcome["model"];
        assert_eq!(
            (
                &outcome["status"],
                &outcome["inspection"],
                &model["version"],
                &model["model"],
                &model["reported"]
            ),
            (&json!("ok"), &json!("window"), &json!("v1"), &json!("real-model"), &json!(true)),
            "{outcome}"
        );
        assert_eq!(
            (model["input_tokens"].as_u64(), model["output_tokens"].as_u64()),
            (Some(USAGE.0), Some(USAGE.1))
        );
        let figures = rig.metrics.render();
        let tokens = format!(
            "castra_model_tokens_total{{route=\"assistant\",version=\"v1\",kind=\"input\"}} {}",
            USAGE.0
        );
        assert!(figures.contains(&tokens), "{figures}");
        rig.close_and_verify().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_reach_neither_provider_nor_agent() {
    for asks in ALL_ASKS {
        let said = secret();
        let server = provider::saying(asks.native(), Says::text(&["the key is ", &said, "."])).await;
        let rig = Rig::start(wish(asks.native(), &server)).await;
        rig.keep_secret(&said);
        let got = asks.ask(&rig, &format!("my key {said} is mine")).await;
        assert_eq!(asks.text(&got.json()), format!("the key is {MASK}."), "{asks:?}: {}", got.body);
        let seen = &server.requests()[0].body;
        assert!(seen.contains(MASK) && !seen.contains(&said), "{asks:?}: {seen}");
        let outcome = &rig.outcomes(1).await[0];
        assert_eq!(outcome["findings"], json!(["secret.aws-access-key"]), "{outcome}");
        rig.close_and_verify().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_passes_uninspected_says_so() {
    let said = secret();
    let server = provider::saying(Speaks::Chat, Says::text(&[&said])).await;
    let policies = r#"@inspect("pass") permit (principal, action, resource);"#;
    let rig = Rig::start(Wish { policies, ..wish(Speaks::Chat, &server) }).await;
    let got = Asks::Chat.ask(&rig, "hi").await;
    assert_eq!((got.header("castra-inspection"), Asks::Chat.text(&got.json())), ("none", said));
    assert_eq!(rig.outcomes(1).await[0]["inspection"], "pass");
    rig.close_and_verify().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn policies_see_what_is_asked_and_what_was_found() {
    let server = provider::saying(Speaks::Chat, Says::text(&["hello"])).await;
    let policies = r#"
        permit (principal, action, resource);
        forbid (principal, action == Castra::Action::"complete", resource) when { context.findings.contains("secret.aws-access-key") };
        forbid (principal, action == Castra::Action::"complete", resource) when { context.model.tools.contains("shell") };
        forbid (principal, action == Castra::Action::"complete", resource) when { context.model.stream };"#;
    let rig = Rig::start(Wish { policies, ..wish(Speaks::Chat, &server) }).await;
    assert_eq!(Asks::Chat.ask(&rig, "hi").await.status, 200);
    assert_eq!(Asks::Chat.ask(&rig, &secret()).await.status, 403);
    assert_eq!(Asks::Chat.ask_with(&rig, "hi", &["shell"]).await.status, 403);
    assert_eq!(Asks::Chat.stream(&rig, "hi", &[]).await.status, 403);
    assert_eq!(server.requests().len(), 1);
    rig.close_and_verify().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_and_providers_of_other_forms_understand_each_other() {
    for asks in ALL_ASKS {
        for speaks in [Speaks::Chat, Speaks::Messages, Speaks::Gemini] {
            let case = format!("{asks:?} to {speaks:?}");
            let server = provider::saying(speaks, Says::text(&["hello ", &secret()])).await;
            let rig = Rig::start(wish(speaks, &server)).await;
            let got = asks.ask(&rig, "hi").await;
            assert_eq!(got.status, 200, "{case}: {}", got.body);
            assert_eq!(asks.text(&got.json()), format!("hello {MASK}"), "{case}");
            let model = &rig.outcomes(1).await[0]["model"];
            assert_eq!(model["output_tokens"].as_u64(), Some(USAGE.1), "{case}");
            rig.close_and_verify().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_fails_is_stood_in_for() {
    let sick = provider::start(Speaks::Chat, |_| {
        provider::Does::Raw(server::answer(
            "503 Service Unavailable",
            "application/json",
            r#"{"error":{"message":"overloaded"}}"#,
        ))
    })
    .await;
    let well = provider::saying(Speaks::Messages, Says::text(&["hello"])).await;
    let models = vec![route("assistant", &[("v1", Speaks::Chat, &sick), ("v2", Speaks::Messages, &well)])];
    let rig = Rig::start(Wish { models, ..wish(Speaks::Chat, &sick) }).await;
    let got = Asks::Chat.ask(&rig, "hi").await;
    assert_eq!((got.status.as_u16(), got.header("castra-model")), (200, "assistant@v2"), "{}", got.body);
    assert_eq!(rig.outcomes(1).await[0]["model"]["version"], "v2");
    rig.close_and_verify().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_budget_is_reserved_settled_and_given_back() {
    let server = provider::saying(Speaks::Chat, Says::text(&["hello"])).await;
    let rule = Rule {
        name: "all".into(),
        per: Per::Hour,
        limit: Limit { requests: Some(2), ..Limit::default() },
        covers: Covers::default(),
        each: false,
    };
    let budgets = Settings { rules: vec![rule], ..Settings::default() };
    let policies =
        r#"permit (principal, action, resource) unless { context has model && context.model.stream };"#;
    let rig = Rig::start(Wish { budgets, policies, ..wish(Speaks::Chat, &server) }).await;
    // A denied call costs nothing.
    for _ in 0..3 {
        assert_eq!(Asks::Chat.stream(&rig, "hi", &[]).await.status, 403);
    }
    assert_eq!(Asks::Chat.ask(&rig, "hi").await.status, 200);
    assert_eq!(Asks::Messages.ask(&rig, "hi").await.status, 200);
    let over = Asks::Messages.ask(&rig, "hi").await;
    assert_eq!(over.status, 429, "{}", over.body);
    assert!(!over.header("retry-after").is_empty());
    assert!(Asks::Messages.error(&over).0.contains("rate_limit"), "{}", over.body);
    assert_eq!(server.requests().len(), 2);
    rig.close_and_verify().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_a_budget_counts_is_bounded_by_what_was_reserved() {
    for (limit, bounded) in [
        (Limit { tokens: Some(100_000), ..Limit::default() }, true),
        (Limit { requests: Some(10), ..Limit::default() }, false),
    ] {
        let server = provider::saying(Speaks::Chat, Says::text(&["hello"])).await;
        let rule = Rule { name: "all".into(), per: Per::Hour, limit, covers: Covers::default(), each: false };
        let budgets = Settings { rules: vec![rule], output_default: 700, ..Settings::default() };
        let rig = Rig::start(Wish { budgets, ..wish(Speaks::Chat, &server) }).await;
        assert_eq!(Asks::Chat.ask(&rig, "hi").await.status, 200);
        let sent = &server.requests()[0].body;
        assert_eq!(sent.contains("\"max_tokens\":700"), bounded, "{sent}");
        rig.close_and_verify().await;
    }
}
