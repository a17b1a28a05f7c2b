//! How long a decision takes with 10, 1,000 and 100,000 policies of which few name the agent or the
//! tool: `cargo run --release -p castra-policy --example decide_bench [COUNT…]`. Wall time, one thread.

#![allow(clippy::print_stdout)] // that is what it is for

use std::{fmt::Write, hint::black_box, net::IpAddr, time::Instant};

use castra_core::{AgentIdentity, AuthMethod, Decision, Effect, Operation, Protocol, ResourceRef, Timestamp};
use castra_policy::{
    Catalogue, CatalogueServer, CatalogueTool, DecisionRequest, Engine, Particulars, PolicySource,
};
use serde_json::json;

/// The program's own, so that what is measured is what it does.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const ROUNDS: usize = 20_000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut counts: Vec<usize> = std::env::args().skip(1).map(|n| n.parse()).collect::<Result<_, _>>()?;
    if counts.is_empty() {
        counts = vec![10, 1_000, 100_000];
    }
    println!("policies | load ms | case | p50 us | p99 us");
    for count in counts {
        let source = PolicySource { file: "bench.cedar".to_owned(), text: policies(count) };
        let start = Instant::now();
        let engine = Engine::load(&[source], &catalogue()?).map_err(|problems| problems.to_string())?;
        let load = start.elapsed().as_millis();
        let agent = AgentIdentity {
            name: "agent-0".parse()?,
            groups: vec!["builders".parse()?],
            method: AuthMethod::Token,
            credential: "t".into(),
            expires: None,
            scopes: vec![],
            delegation: Vec::new(),
        };
        for (case, tool, effect, expected) in [
            ("allow, context and arguments", "write_file", Effect::Write, Decision::Allow),
            ("allow, no context", "read_file", Effect::Read, Decision::Allow),
            ("deny by default, explained", "delete", Effect::Destroy, Decision::Deny),
        ] {
            let resource = ResourceRef::Tool { server: "files".parse()?, name: tool.into() };
            let request = DecisionRequest {
                agent: &agent,
                operation: Operation::Call,
                resource: &resource,
                effect,
                external: false,
                time: Timestamp::from_secs(1_795_521_600),
                source: IpAddr::from([10, 0, 0, 7]),
                protocol: Protocol::Mcp,
                revision: "2026-07-28",
                modern: true,
                run: None,
                arguments: Some(br#"{"path": "/srv/files/a.txt", "content": "some text"}"#),
                findings: &[],
                particulars: Particulars::None,
                flow: None,
                approval: None,
            };
            let verdict = engine.decide(&request);
            if verdict.decision != expected {
                return Err(format!("{case}: {}", verdict.reason).into());
            }
            let mut times: Vec<_> = (0..ROUNDS).map(|_| once(&engine, &request)).collect();
            times.sort_unstable();
            let at = |hundredths: usize| {
                times.get(ROUNDS * hundredths / 100).copied().unwrap_or_default() as f64 / 1000.0
            };
            println!("{count} | {load} | {case} | {:.2} | {:.2}", at(50), at(99));
        }
    }
    Ok(())
}

fn once(engine: &Engine, request: &DecisionRequest<'_>) -> u128 {
    let start = Instant::now();
    black_box(engine.decide(black_box(request)));
    start.elapsed().as_nanos()
}

fn catalogue() -> Result<Catalogue, Box<dyn std::error::Error>> {
    let schema =
        json!({"type": "object", "properties": {"path": {"type": "string"}, "content": {"type": "string"}}});
    let tools = [("read_file", Effect::Read), ("write_file", Effect::Write), ("delete", Effect::Destroy)]
        .map(|(name, effect)| CatalogueTool {
            name: name.into(),
            effect,
            external: false,
            described: false,
            input_schema: schema.clone(),
        });
    let servers = vec![CatalogueServer { name: "files".parse()?, tools: tools.into() }];
    Ok(Catalogue {
        servers,
        agents: vec![("agent-0".parse()?, vec!["builders".parse()?])],
        ..Catalogue::default()
    })
}

/// Six policies that matter to the agent, the rest names others.
fn policies(count: usize) -> String {
    let mut text = String::from(
        r#"
@id("reads") permit (principal, action == Castra::Action::"call", resource is Castra::Tool) when { resource.effect == "read" };
@id("no-secrets") forbid (principal, action == Castra::Action::"call", resource == Castra::Tool::"files/write_file")
  when { context.args has path && context.args.path like "*.key" };
@id("writes") permit (principal == Castra::Agent::"agent-0", action == Castra::Action::"call", resource == Castra::Tool::"files/write_file")
  when { context.args has path && context.args.path like "/srv/files/*" };
@id("by-day") permit (principal in Castra::Group::"builders", action == Castra::Action::"call", resource == Castra::Tool::"files/write_file")
  when { context.time.hour >= 8 && context.time.hour < 18 && context.auth.strength >= 1 };
@id("from-here") forbid (principal == Castra::Agent::"agent-0", action == Castra::Action::"call", resource == Castra::Tool::"files/write_file")
  unless { context.source.ip.isInRange(ip("10.0.0.0/8")) };
@id("deletes") permit (principal == Castra::Agent::"agent-0", action == Castra::Action::"call", resource == Castra::Tool::"files/delete")
  when { context.time.hour == 23 };
"#,
    );
    for i in 6..count {
        let _ = writeln!(
            text,
            "@id(\"p{i}\") permit (principal == Castra::Agent::\"agent-{i}\", action == Castra::Action::\"call\", \
             resource in Castra::Server::\"server-{}\") when {{ context.time.hour < {} }};",
            i % 100,
            i % 24
        );
    }
    text
}
