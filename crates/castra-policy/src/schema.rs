//! Writes the Cedar schema that policies are validated against. It depends on nothing but the
//! catalogue and comes out the same for the same catalogue, so that it can be checked in and compared.

use std::fmt::Write;

use crate::{
    catalogue::{Catalogue, Known, KnownTool},
    types::{ArgumentType, Field, Fields},
};

/// The Cedar schema of a catalogue, in Cedar's own schema syntax with comments.
pub fn schema_text(catalogue: &Catalogue) -> String {
    text(&Known::new(catalogue))
}

pub(crate) fn text(known: &Known) -> String {
    let mut out = String::from(FIXED);
    arguments(&mut out, known);
    calls(&mut out, known);
    out.push_str(ACTIONS);
    out
}

const FIXED: &str = r#"// What policies of this gate can speak of. Generated from configuration and catalogue; do not edit.
namespace Castra {
  // A group of agents, as configured: `principal in Castra::Group::"builders"`.
  entity Group;
  // A workload that acts by itself: `principal == Castra::Agent::"mailer"`.
  entity Agent in [Group] = {
    name: String,
  };
  // An MCP server: `resource in Castra::Server::"files"` is the server and all that it offers.
  entity Server = {
    name: String,
  };
  // A tool: `resource == Castra::Tool::"files/read_file"`.
  entity Tool in [Server] = {
    server: Server,
    name: String,
    // "read", "write", "destroy", or "act" when nothing is known of it.
    effect: String,
    // Whether it reaches outside.
    external: Bool,
    // Whether a manifest describes it.
    described: Bool,
  };
  // A resource of a server: `resource == Castra::Resource::"files/file:///srv/a.txt"`.
  entity Resource in [Server] = {
    server: Server,
    uri: String,
  };
  // A prompt of a server: `resource == Castra::Prompt::"files/summary"`.
  entity Prompt in [Server] = {
    server: Server,
    name: String,
  };

  // A model route, under the name that agents use: `resource == Castra::Model::"assistant"`.
  entity Model = {
    name: String,
  };
  // Another agent, reached over A2A: `resource == Castra::Peer::"planner"`.
  entity Peer = {
    name: String,
  };

  // When it happens, in UTC.
  type Time = {
    // Seconds since 1970.
    epoch: Long,
    // 0 to 23.
    hour: Long,
    // 0 to 1439.
    minute_of_day: Long,
    // "monday" to "sunday".
    weekday: String,
    // To the millisecond; compare it with datetime("2026-12-24T12:00:00Z").
    datetime: datetime,
  };
  // Where the request came from.
  type Source = {
    // context.source.ip.isInRange(ip("10.0.0.0/8"))
    ip: ipaddr,
    // "loopback", "private" or "public".
    network: String,
  };
  // How the agent proved who it is.
  type Auth = {
    // "token", "certificate" or "jwt".
    method: String,
    // 1: whoever holds the credential is believed; 2: possession of a key was proved.
    strength: Long,
  };
  // On whose behalf the agent acts (RFC 8693, `act`).
  type Delegation = {
    // How many stand between the agent and its own authority: 0 when it acts for itself.
    depth: Long,
    // Their names, as the token has them: context.delegation.chain.contains("alice@example.org")
    chain: Set<String>,
  };
  // What flow control found: where the arguments of a call came from, and what its run has seen.
  type Flow = {
    // "full": the gate sees what the user says; "tools": only calls and their results.
    coverage: String,
    // A manifest describes the tool.
    described: Bool,
    // The run has read what strangers may have written.
    tainted: Bool,
    // Something that the user said is known.
    prompted: Bool,
    // The run has read a source that its manifest calls secret.
    secret: Bool,
    // An attack on the run was seen.
    suspect: Bool,
    // What the user said asks for this kind of call.
    intended: Bool,
    // Critical arguments with a value that no trusted source gave: context.flow.unfounded.contains("recipient")
    unfounded: Set<String>,
    // Of those, ids of objects that appeared nowhere in the run: a guess.
    unseen: Set<String>,
    // Arguments with a value that was seen only in untrusted text.
    injected: Set<String>,
    // Free arguments with links, addresses or orders to a machine that no trusted source gave.
    active: Set<String>,
    // Arguments that carry what is confidential to a place that its label does not allow.
    leaking: Set<String>,
  };
  // A person's word for exactly this action: `unless { context has approval }`.
  type Approval = {
    // Who approved.
    by: Set<String>,
    // Seconds since the last of them did.
    age: Long,
  };
"#;

const ACTIONS: &str = r#"
  // A tool is called.
  action "call" appliesTo {
    principal: [Agent],
    resource: [Tool, Server],
    context: {
      time: Time,
      source: Source,
      auth: Auth,
      // "mcp".
      protocol: String,
      // "legacy" (with a handshake) or "modern" (without).
      era: String,
      // The protocol revision, such as "2026-07-28".
      revision: String,
      // The run that the agent named, if it did.
      run?: String,
      delegation: Delegation,
      // Kinds of what inspectors saw in it, such as "secret.aws-access-key".
      findings: Set<String>,
      flow: Flow,
      approval?: Approval,
      args: Arguments,
      call: Calls,
    },
  };
  // A resource, a prompt or a completion is read.
  action "read" appliesTo {
    principal: [Agent],
    resource: [Resource, Prompt, Server],
    context: {
      time: Time,
      source: Source,
      auth: Auth,
      protocol: String,
      era: String,
      revision: String,
      run?: String,
      delegation: Delegation,
      findings: Set<String>,
      flow: Flow,
      approval?: Approval,
    },
  };
  // A model is asked.
  action "complete" appliesTo {
    principal: [Agent],
    resource: [Model],
    context: {
      time: Time,
      source: Source,
      auth: Auth,
      // "openai" or "anthropic".
      protocol: String,
      run?: String,
      delegation: Delegation,
      findings: Set<String>,
      flow: Flow,
      approval?: Approval,
      model: {
        // "chat", "responses", "messages", "embeddings" or "count-tokens".
        kind: String,
        // Whether the answer is asked for as a stream.
        stream: Bool,
        // The tools that the model may call, by name.
        tools: Set<String>,
        // Whether images, sound or files are in the request.
        media: Bool,
      },
    },
  };
  // A peer is sent a message.
  action "send" appliesTo {
    principal: [Agent],
    resource: [Peer],
    context: {
      time: Time,
      source: Source,
      auth: Auth,
      // "a2a".
      protocol: String,
      revision: String,
      run?: String,
      delegation: Delegation,
      findings: Set<String>,
      flow: Flow,
      approval?: Approval,
      message: {
        // The operation in A2A's own words, such as "SendMessage" or "GetTask".
        method: String,
        // Whether files are in the message.
        media: Bool,
      },
    },
  };
}
"#;

fn arguments(out: &mut String, known: &Known) {
    out.push_str(
        "\n  // Arguments by name over all tools: those that all tools which have them type alike.\n",
    );
    out.push_str("  type Arguments = {\n");
    for (name, kind) in &known.arguments.0 {
        if let Some(kind) = kind {
            attribute(out, 4, name, &Field { kind: kind.clone(), required: false });
        }
    }
    out.push_str("  };\n");
}

fn calls(out: &mut String, known: &Known) {
    out.push_str(
        "\n  // Arguments by tool, typed as the tool's input schema says. Only the called tool is there:\n",
    );
    out.push_str("  // context.call has \"files/read_file\" && context.call[\"files/read_file\"].path like \"/srv/*\"\n");
    out.push_str("  type Calls = {\n");
    for (id, tool) in &known.tools {
        call(out, id, tool);
    }
    out.push_str("  };\n");
}

fn call(out: &mut String, id: &str, tool: &KnownTool) {
    let untyped = tool.types.fields.values().filter(|field| field.is_none()).count();
    if untyped > 0 {
        let _ = writeln!(out, "    // {untyped} more that Cedar cannot type");
    }
    let _ = write!(out, "    {}?: ", quoted(id));
    fields(out, 4, &tool.types.fields);
    out.push_str(",\n");
}

fn attribute(out: &mut String, indent: usize, name: &str, field: &Field) {
    let mark = if field.required { "" } else { "?" };
    let _ = write!(out, "{:indent$}{}{mark}: ", "", quoted(name));
    kind(out, indent, &field.kind);
    out.push_str(",\n");
}

fn kind(out: &mut String, indent: usize, of: &ArgumentType) {
    match of {
        ArgumentType::String => out.push_str("String"),
        ArgumentType::Long => out.push_str("Long"),
        ArgumentType::Bool => out.push_str("Bool"),
        ArgumentType::Decimal => out.push_str("decimal"),
        ArgumentType::Set(item) => {
            out.push_str("Set<");
            kind(out, indent, item);
            out.push('>');
        }
        ArgumentType::Record(of) => fields(out, indent, of),
    }
}

fn fields(out: &mut String, indent: usize, of: &Fields) {
    out.push_str("{\n");
    for (name, field) in of {
        if let Some(field) = field {
            attribute(out, indent + 2, name, field);
        }
    }
    let _ = write!(out, "{:indent$}}}", "");
}

/// A Cedar string literal. Cedar's escapes are those of Rust.
pub(crate) fn quoted(text: &str) -> String {
    format!("\"{}\"", text.escape_debug())
}
