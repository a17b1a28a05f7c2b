//! Usage: interop ERA URL TOKEN SERVER FOLDER
//!
//! Drives one MCP server through a gate with the official Rust SDK, as `eval/interop/client.mjs` and
//! `client.py` do with theirs. Prints a line per check: `ok NAME` or `failed NAME: why`.
// A program for people and for xtask: it prints.
#![allow(clippy::print_stdout)]

use rmcp::{
    ClientLifecycleMode, ClientServiceExt, RoleClient,
    model::{CallToolRequestParams, GetPromptRequestParams, ProtocolVersion, ReadResourceRequestParams},
    service::RunningService,
    transport::{StreamableHttpClientTransport, streamable_http_client::StreamableHttpClientTransportConfig},
};
use serde_json::{Value, json};

type Client = RunningService<RoleClient, ()>;
type Outcome = Result<(), String>;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [era, url, token, server, folder] = args.as_slice() else {
        println!("failed usage: interop ERA URL TOKEN SERVER FOLDER");
        return;
    };
    match connect(era, url, token).await {
        Ok(client) => {
            println!("ok connect");
            for (name, outcome) in checks(&client, server, folder, era).await {
                match outcome {
                    Ok(()) => println!("ok {name}"),
                    Err(why) => println!("failed {name}: {}", why.lines().next().unwrap_or_default()),
                }
            }
        }
        Err(why) => println!("failed connect: {why}"),
    }
}

async fn connect(era: &str, url: &str, token: &str) -> Result<Client, String> {
    let config = StreamableHttpClientTransportConfig::with_uri(url).auth_header(token);
    let lifecycle = if era == "2026-07-28" {
        ClientLifecycleMode::Discover { preferred_versions: vec![ProtocolVersion::V_2026_07_28] }
    } else {
        ClientLifecycleMode::Initialize
    };
    let transport = StreamableHttpClientTransport::from_config(config);
    ().serve_with_lifecycle(transport, lifecycle).await.map_err(|e| e.to_string())
}

async fn checks(client: &Client, server: &str, folder: &str, era: &str) -> Vec<(&'static str, Outcome)> {
    let mine = format!("{folder}/rust-{era}.txt");
    match server {
        "everything" => vec![
            ("tools/list", lists(client, "echo").await),
            ("tools/call", calls(client, "echo", json!({"message": "ave"}), "ave").await),
            (
                "structured content",
                calls(client, "get-structured-content", json!({"location": "New York"}), "temperature").await,
            ),
            ("resources", resources(client).await),
            ("prompts", prompts(client).await),
            ("unknown tool", unknown(client).await),
        ],
        "filesystem" => vec![
            ("write", calls(client, "write_file", json!({"path": mine, "content": "salve"}), "wrote").await),
            ("read", calls(client, "read_text_file", json!({"path": mine}), "salve").await),
        ],
        "memory" => vec![("read", calls(client, "read_graph", json!({}), "entities").await)],
        "git" => vec![("status", calls(client, "git_status", json!({"repo_path": folder}), "main").await)],
        "time" => vec![("now", calls(client, "get_current_time", json!({"timezone": "UTC"}), "UTC").await)],
        other => vec![("server", Err(format!("there are no checks for {other}")))],
    }
}

async fn lists(client: &Client, tool: &str) -> Outcome {
    let tools = client.list_all_tools().await.map_err(|e| e.to_string())?;
    if tools.iter().any(|t| t.name == tool) { Ok(()) } else { Err(format!("no tool {tool}")) }
}

async fn calls(client: &Client, tool: &'static str, arguments: Value, expected: &str) -> Outcome {
    let arguments = arguments.as_object().cloned().unwrap_or_default();
    let result = client.call_tool(CallToolRequestParams::new(tool).with_arguments(arguments)).await;
    let shown = serde_json::to_string(&result.map_err(|e| e.to_string())?).map_err(|e| e.to_string())?;
    if shown.contains(expected) { Ok(()) } else { Err(format!("no {expected:?} in {shown}")) }
}

async fn resources(client: &Client) -> Outcome {
    let listed = client.list_all_resources().await.map_err(|e| e.to_string())?;
    let templates = client.list_all_resource_templates().await.map_err(|e| e.to_string())?;
    let read = client.read_resource(ReadResourceRequestParams::new("demo://resource/dynamic/text/1")).await;
    let read = read.map_err(|e| e.to_string())?;
    let good = !listed.is_empty() && !templates.is_empty() && !read.contents.is_empty();
    if good { Ok(()) } else { Err("an empty list".into()) }
}

async fn prompts(client: &Client) -> Outcome {
    let listed = client.list_all_prompts().await.map_err(|e| e.to_string())?;
    let arguments = json!({"city": "Roma"}).as_object().cloned().unwrap_or_default();
    let got = client.get_prompt(GetPromptRequestParams::new("args-prompt").with_arguments(arguments)).await;
    let shown = serde_json::to_string(&got.map_err(|e| e.to_string())?).map_err(|e| e.to_string())?;
    if !listed.is_empty() && shown.contains("Roma") { Ok(()) } else { Err("no city".into()) }
}

async fn unknown(client: &Client) -> Outcome {
    match client.call_tool(CallToolRequestParams::new("no-such-tool")).await {
        Ok(result) if result.is_error != Some(true) => Err("it was answered".into()),
        _ => Ok(()),
    }
}
