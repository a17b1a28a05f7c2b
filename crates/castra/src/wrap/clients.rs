//! The MCP clients that `castra wrap` knows: where each keeps its configuration, and in which form.
//!
//! Sources, November 2026: Claude Code code.claude.com/docs/en/mcp; Claude Desktop
//! modelcontextprotocol.io/quickstart/user; Cursor cursor.com/docs/mcp; VS Code
//! code.visualstudio.com/docs/agents/reference/mcp-configuration; Codex developers.openai.com/codex/mcp;
//! Gemini CLI geminicli.com/docs/tools/mcp-server.

use std::path::{Path, PathBuf};

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// An MCP client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ClientKind {
    /// Claude Code
    ClaudeCode,
    /// Claude Desktop
    ClaudeDesktop,
    /// Cursor
    Cursor,
    /// Visual Studio Code
    Vscode,
    /// Codex
    Codex,
    /// Gemini CLI
    GeminiCli,
}

impl ClientKind {
    /// The name of the agent that stands for the client, and of the client on the command line.
    pub(crate) fn id(self) -> &'static str {
        match self {
            Self::ClaudeCode => "claude-code",
            Self::ClaudeDesktop => "claude-desktop",
            Self::Cursor => "cursor",
            Self::Vscode => "vscode",
            Self::Codex => "codex",
            Self::GeminiCli => "gemini-cli",
        }
    }

    /// Its name for people.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::ClaudeCode => "Claude Code",
            Self::ClaudeDesktop => "Claude Desktop",
            Self::Cursor => "Cursor",
            Self::Vscode => "VS Code",
            Self::Codex => "Codex",
            Self::GeminiCli => "Gemini CLI",
        }
    }

    /// How the client writes variables in its configuration.
    pub(crate) fn variables(self) -> Variables {
        match self {
            Self::ClaudeCode => Variables::Braces,
            Self::Cursor | Self::Vscode => Variables::Editor,
            Self::GeminiCli => Variables::Dollar,
            Self::ClaudeDesktop | Self::Codex => Variables::None,
        }
    }
}

/// How a client writes variables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Variables {
    /// Not at all.
    None,
    /// `${NAME}` and `${NAME:-default}`.
    Braces,
    /// `${NAME}`, and `$NAME` too.
    Dollar,
    /// `${env:NAME}`, `${userHome}`, `${workspaceFolder}`, and others that only the editor knows.
    Editor,
}

/// Where in a file the servers stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// JSON, an object of servers under these keys.
    Json(&'static [&'static str]),
    /// JSON, under `mcpServers`, and for each project under `projects.PATH.mcpServers`.
    JsonWithProjects,
    /// TOML, a table per server.
    Toml,
}

/// A file that may hold servers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) client: ClientKind,
    pub(crate) file: PathBuf,
    pub(crate) shapes: &'static [Shape],
    /// The project that it belongs to, if it does; its servers start there.
    pub(crate) project: Option<PathBuf>,
}

const MCP_SERVERS: &[Shape] = &[Shape::Json(&["mcpServers"])];
const SERVERS: &[Shape] = &[Shape::Json(&["servers"])];
const SETTINGS: &[Shape] = &[Shape::Json(&["mcp", "servers"]), Shape::Json(&["mcp.servers"])];

/// All places under a home folder and a project folder, whether they exist or not. The places of all
/// operating systems are looked at: they do not collide, and home folders travel.
pub(crate) fn places(home: &Path, project: &Path) -> Vec<Place> {
    use ClientKind::{ClaudeCode, ClaudeDesktop, Codex, Cursor, GeminiCli, Vscode};
    let user = |client, file: PathBuf, shapes| Place { client, file, shapes, project: None };
    let mut places =
        vec![user(ClaudeCode, home.join(".claude.json"), &[Shape::JsonWithProjects] as &[Shape])];
    // macOS, Windows, Linux.
    for base in ["Library/Application Support", "AppData/Roaming", ".config"].map(|base| home.join(base)) {
        places.push(user(ClaudeDesktop, base.join("Claude/claude_desktop_config.json"), MCP_SERVERS));
        for edition in ["Code", "Code - Insiders"] {
            places.push(user(Vscode, base.join(edition).join("User/mcp.json"), SERVERS));
            places.push(user(Vscode, base.join(edition).join("User/settings.json"), SETTINGS));
        }
    }
    places.push(user(Cursor, home.join(".cursor/mcp.json"), MCP_SERVERS));
    places.push(user(Codex, home.join(".codex/config.toml"), &[Shape::Toml]));
    places.push(user(GeminiCli, home.join(".gemini/settings.json"), MCP_SERVERS));
    if project == home {
        return places;
    }
    let own: [(ClientKind, &str, &'static [Shape]); 6] = [
        (ClaudeCode, ".mcp.json", MCP_SERVERS),
        (Cursor, ".cursor/mcp.json", MCP_SERVERS),
        (Vscode, ".vscode/mcp.json", SERVERS),
        (Vscode, ".vscode/settings.json", SETTINGS),
        (Codex, ".codex/config.toml", &[Shape::Toml]),
        (GeminiCli, ".gemini/settings.json", MCP_SERVERS),
    ];
    places.extend(own.into_iter().map(|(client, file, shapes)| Place {
        client,
        file: project.join(file),
        shapes,
        project: Some(project.into()),
    }));
    places
}
