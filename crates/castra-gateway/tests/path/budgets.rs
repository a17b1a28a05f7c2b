//! Budgets on the way of a call over MCP: what is refused, how the caller is told, and what is counted.

use castra_core::AgentName;
use castra_gateway::budget::{Covers, Limit, Per, Rule, Settings};
use serde_json::json;

use crate::{
    rig::{ALL, Rig, Wish, said},
    server::Server,
    servers::{self, Era},
};

const PATH: &str = "/mcp/files";

fn requests(n: u64, agent: Option<&str>) -> Settings {
    let covers = Covers { agent: agent.map(|name| AgentName::new(name).unwrap()), ..Covers::default() };
    let limit = Limit { requests: Some(n), ..Limit::default() };
    let rule = Rule { name: "calls".into(), covers, each: true, per: Per::Month, limit };
    Settings { rules: vec![rule], ..Settings::default() }
}

async fn rig(policies: &'static str, budgets: Settings) -> (Rig, Server) {
    let (server, _) = servers::lively(Era::Modern).await;
    let servers = vec![("files", server.transport())];
    let rig = Rig::start(Wish { servers, policies, budgets, agents: vec!["other"], ..Wish::default() }).await;
    rig.learned("files", servers::LIVELY).await;
    (rig, server)
}

fn spent(rig: &Rig, agent: &str) -> u64 {
    let accounts = rig.gate.budgets().accounts();
    let own = accounts.iter().find(|a| a.agent.as_ref().is_some_and(|name| name.as_str() == agent));
    own.map_or(0, |account| account.spent.requests)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_over_budget_is_told_when_it_works_again() {
    for era in [Era::Modern, Era::Legacy] {
        let (rig, _server) = rig(ALL, requests(2, None)).await;
        let client = rig.meet(era, PATH).await;
        for _ in 0..2 {
            assert_eq!(said(&rig.call(&client, "look").await.json()), "look done");
        }
        let refused = rig.call(&client, "look").await;
        assert_eq!(refused.status, 200, "{}", refused.body);
        let result = &refused.json()["result"];
        assert_eq!(result["isError"], true);
        let text = result["content"][0]["text"].as_str().unwrap();
        assert!(text.contains("budget calls (everything; the account of tester): 2 of 2 requests"), "{text}");
        assert!(text.contains("It works again at 2"), "{text}");
        let told = &result["_meta"]["castra.dev/refusal"];
        assert_eq!(told["code"], "over-budget");
        assert!(told["retry_after_seconds"].as_u64().unwrap() <= 31 * 86_400, "{told}");
        let refusals = rig.records_of("refusal").await;
        assert_eq!((&refusals[0]["code"], &refusals[0]["step"]), (&json!("over-budget"), &json!("decide")));
        assert_eq!((spent(&rig, "tester"), refusals.len()), (2, 1));
        // Another agent has an account of its own.
        let other = rig.modern_by(&rig.tokens["other"], PATH, "tools/call", json!({"name": "look"})).await;
        assert_eq!(said(&other.json()), "look done");
        // What is no action is not counted.
        let listed = rig.modern_by(&rig.token, PATH, "tools/list", json!({})).await;
        assert!(listed.json()["result"]["tools"].is_array(), "{}", listed.body);
        drop(client);
        rig.close_and_verify().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_tool_call_is_refused_with_429() {
    let (rig, _server) = rig(ALL, requests(0, Some("tester"))).await;
    let refused = rig.modern_by(&rig.token, PATH, "resources/read", json!({"uri": "note:///a"})).await;
    // More than the whole budget never fits, so there is no time to come back at.
    assert_eq!((refused.status.as_u16(), refused.header("retry-after")), (200, ""), "{}", refused.body);
    rig.gate.budgets().replace(requests(1, Some("tester")));
    let first = rig.modern_by(&rig.token, PATH, "tools/call", json!({"name": "look"})).await;
    assert_eq!(said(&first.json()), "look done");
    let refused = rig.modern_by(&rig.token, PATH, "resources/read", json!({"uri": "note:///a"})).await;
    assert_eq!(refused.status, 429, "{}", refused.body);
    let error = &refused.json()["error"];
    assert_eq!(error["code"], 42902);
    let told = error["data"]["castra.dev/refusal"]["retry_after_seconds"].to_string();
    assert_eq!(refused.header("retry-after"), told);
    rig.close_and_verify().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_policy_denies_uses_nothing() {
    let policies = "permit (principal == Castra::Agent::\"other\", action, resource);";
    let (rig, _server) = rig(policies, requests(5, None)).await;
    let denied = rig.modern_by(&rig.token, PATH, "tools/call", json!({"name": "look"})).await;
    assert_eq!(denied.json()["result"]["_meta"]["castra.dev/refusal"]["code"], "denied", "{}", denied.body);
    assert_eq!(spent(&rig, "tester"), 0);
    rig.close_and_verify().await;
}
