//! Writes a least-privilege policy file from what was observed: exactly the agents, tools and
//! resources that were seen, with the counts as comments, for a person to read and cut.

use std::{collections::BTreeMap, fmt::Write};

use castra_core::{AgentName, Decision, Effect, GroupName, Operation, ResourceRef, ServerName, Timestamp};

use crate::{names::Names, schema::quoted};

/// An agent's use of one thing, summed up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observation {
    /// Who.
    pub agent: AgentName,
    /// The groups that the agent was in.
    pub groups: Vec<GroupName>,
    /// Did what.
    pub operation: Operation,
    /// To what.
    pub resource: ResourceRef,
    /// The tool's effect then.
    pub effect: Effect,
    /// How often.
    pub count: u64,
    /// When last.
    pub last: Timestamp,
    /// What was decided then.
    pub decision: Decision,
}

/// A Cedar policy file that permits what was observed and nothing else. It loads under
/// [`Engine::load`](crate::Engine::load) with the catalogue of the time.
pub fn suggest(observations: impl IntoIterator<Item = Observation>) -> String {
    let mut groups: BTreeMap<Heading, BTreeMap<String, Seen>> = BTreeMap::new();
    let Ok(names) = Names::new() else { return String::new() };
    for observation in observations {
        if !matches!(
            observation.operation,
            Operation::Call | Operation::Read | Operation::Complete | Operation::Send
        ) {
            continue;
        }
        let seen = groups.entry(Heading::of(&observation)).or_default();
        seen.entry(names.resource(&observation.resource).to_string()).or_default().add(&observation);
    }
    let mut out = String::from(TOP);
    if groups.is_empty() {
        out.push_str("// Nothing was observed.\n");
    }
    for (heading, seen) in &groups {
        heading.write(&mut out, seen);
    }
    out
}

const TOP: &str = "\
// Suggested from what was observed: exactly that, and nothing else. Read it, remove what should not
// be, and put the file among the policies. Everything that is not permitted is denied.
";

/// One policy: what an agent does on one server, things that change apart from things that read; the
/// models that it asks; the peers that it speaks to.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Heading {
    agent: AgentName,
    server: Option<ServerName>,
    operation: &'static str,
    kind: &'static str,
    changes: bool,
}

#[derive(Default)]
struct Seen {
    count: u64,
    denied: u64,
    last: Option<Timestamp>,
    effect: Option<Effect>,
    groups: Vec<GroupName>,
}

impl Seen {
    fn add(&mut self, observation: &Observation) {
        self.count = self.count.saturating_add(observation.count);
        if observation.decision == Decision::Deny {
            self.denied = self.denied.saturating_add(observation.count);
        }
        if self.last.is_none_or(|last| last <= observation.last) {
            self.last = Some(observation.last);
            self.groups.clone_from(&observation.groups);
        }
        let tool = matches!(observation.resource, ResourceRef::Tool { .. });
        self.effect = tool.then_some(observation.effect);
    }

    fn comment(&self) -> String {
        let mut out = format!("{} times", self.count);
        if self.count == 1 {
            out = "once".to_owned();
        }
        if self.denied > 0 {
            let _ = write!(out, ", {} of them denied by the policies of the time", self.denied);
        }
        if let Some(effect) = self.effect {
            let _ = write!(out, ", effect {}", effect.as_str());
        }
        if let Some(last) = self.last {
            let _ = write!(out, ", last {}", last.to_string().get(..16).unwrap_or_default());
        }
        out
    }
}

impl Heading {
    fn of(observation: &Observation) -> Self {
        let kind = observation.resource.kind();
        Self {
            agent: observation.agent.clone(),
            server: observation.resource.server().cloned(),
            operation: observation.operation.as_str(),
            kind,
            changes: kind == "Tool" && observation.effect.changes(),
        }
    }

    fn write(&self, out: &mut String, seen: &BTreeMap<String, Seen>) {
        let Self { agent, server, operation, kind, changes } = self;
        let what = if *changes { "that change something" } else { "that only read" };
        let title = match *kind {
            "Tool" => format!("tools {what}"),
            "Server" => "the server itself".to_owned(),
            "Model" => "models".to_owned(),
            "Peer" => "peers".to_owned(),
            kind => format!("{}s", kind.to_lowercase()),
        };
        let latest = seen.values().max_by_key(|seen| seen.last);
        let groups: Vec<_> = latest.iter().flat_map(|seen| &seen.groups).map(GroupName::as_str).collect();
        let member = if groups.is_empty() { String::new() } else { format!(" (in {})", groups.join(", ")) };
        let suffix = if *changes { "-changes" } else { "" };
        let (id, of_server, heading) = match server {
            Some(server) => {
                (format!("{agent}-{server}"), format!(" of server {server}"), format!(", server {server}"))
            }
            None => (agent.to_string(), String::new(), String::new()),
        };
        let id = format!("{id}-{operation}-{}{suffix}", kind.to_lowercase());
        let reason = format!("agent {agent} was seen to use these {title}{of_server}");
        let _ = write!(
            out,
            "\n// Agent {agent}{member}{heading}: {title}\n@id({})\n@reason({})\npermit (\n  \
             principal == Castra::Agent::{},\n  action == Castra::Action::{},\n",
            quoted(&id),
            quoted(&reason),
            quoted(agent.as_str()),
            quoted(operation),
        );
        if let (1, Some((resource, one))) = (seen.len(), seen.first_key_value()) {
            let _ = write!(out, "  // {}\n  resource == {resource}\n);\n", one.comment());
            return;
        }
        let within = server
            .as_ref()
            .map(|s| format!(" in Castra::Server::{}", quoted(s.as_str())))
            .unwrap_or_default();
        let _ = write!(out, "  resource is Castra::{kind}{within}\n)\nwhen {{\n  [\n");
        for (resource, seen) in seen {
            let _ = writeln!(out, "    {resource}, // {}", seen.comment());
        }
        out.push_str("  ].contains(resource)\n};\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Catalogue, Engine, PolicySource};

    fn seen(agent: &str, tool: &str, effect: Effect, count: u64, decision: Decision) -> Observation {
        let (server, name) = tool.split_once('/').unwrap();
        Observation {
            agent: agent.parse().unwrap(),
            groups: vec!["builders".parse().unwrap()],
            operation: Operation::Call,
            resource: ResourceRef::Tool { server: server.parse().unwrap(), name: name.into() },
            effect,
            count,
            last: Timestamp::from_secs(1_795_557_868),
            decision,
        }
    }

    #[test]
    fn what_was_seen_is_permitted() {
        let text = suggest([
            seen("mailer", "files/read_file", Effect::Read, 11, Decision::Allow),
            seen("mailer", "files/read_file", Effect::Read, 1, Decision::Deny),
            seen("mailer", "files/list", Effect::Read, 1, Decision::Allow),
            seen(
                "mailer",
                "files/rm\n\");forbid(principal,action,resource);//",
                Effect::Destroy,
                2,
                Decision::Deny,
            ),
        ]);
        let expected = r#"
// Agent mailer (in builders), server files: tools that only read
@id("mailer-files-call-tool")
@reason("agent mailer was seen to use these tools that only read of server files")
permit (
  principal == Castra::Agent::"mailer",
  action == Castra::Action::"call",
  resource is Castra::Tool in Castra::Server::"files"
)
when {
  [
    Castra::Tool::"files/list", // once, effect read, last 2026-11-24T22:04
    Castra::Tool::"files/read_file", // 12 times, 1 of them denied by the policies of the time, effect read, last 2026-11-24T22:04
  ].contains(resource)
};

// Agent mailer (in builders), server files: tools that change something
@id("mailer-files-call-tool-changes")
@reason("agent mailer was seen to use these tools that change something of server files")
permit (
  principal == Castra::Agent::"mailer",
  action == Castra::Action::"call",
  // 2 times, 2 of them denied by the policies of the time, effect destroy, last 2026-11-24T22:04
  resource == Castra::Tool::"files/rm\n\");forbid(principal,action,resource);//"
);
"#;
        assert_eq!(text, format!("{TOP}{expected}"));
        let source = PolicySource { file: "suggested.cedar".into(), text };
        let engine = Engine::load(&[source], &Catalogue::default()).unwrap();
        assert_eq!(engine.policy_count(), 2);
        assert!(suggest([]).contains("Nothing was observed"));
    }
}
