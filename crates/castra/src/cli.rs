//! The command line: what can be said. What is then done stands in one file per command under `commands/`.

use std::path::PathBuf;

use castra_core::{AgentName, Decision, GroupName, ModelName, PeerName, ServerName, Timestamp};
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::config::Time;

const CODES: &str = "Exit codes: 0 done, 1 failed, 2 found something or bad usage.";

/// The security plane for AI agents: every action identified, decided, recorded, explained.
#[derive(Debug, Parser)]
#[command(name = "castra", version, after_help = CODES, max_term_width = 100, subcommand_required = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What every command takes.
#[derive(Debug, Args)]
pub(crate) struct Global {
    /// The configuration file [default: castra.toml in the state folder if --state is given, else here, if it is there]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// The state folder [default: as the configuration says]
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) state: Option<PathBuf>,
    /// Print results as JSON
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the gate and the console
    #[command(after_help = "Prints one line when it serves; with --json an object with the addresses.
SIGHUP or a changed file reloads policies and configuration; SIGTERM or Ctrl-C ends it gracefully,
a second one at once.

Example:
  castra up --config castra.toml

Exit codes: 0 ended as asked, 1 failed, 2 bad usage.")]
    Up,
    /// Write a commented castra.toml and a policy folder to start from
    #[command(after_help = "Example:
  castra init && castra up

Exit codes: 0 written, 1 failed (also when a file is there already), 2 bad usage.")]
    Init,
    /// Show on real traffic what the gate does, in a folder of its own
    #[command(
        after_help = "Runs a small MCP server and client through a gate, shows what passes and what is refused,
verifies the log, and leaves its state there.

Example:
  castra demo --state demo

Exit codes: 0 everything went as shown, 1 failed, 2 bad usage."
    )]
    Demo(DemoArgs),
    /// Check configuration, folders, ports, certificates, clock, servers, policies and log
    #[command(after_help = "Example:
  castra doctor

Exit codes: 0 all is well, 1 failed, 2 found something; each finding says how to mend it.")]
    Doctor,
    /// Put the MCP servers of the clients on this machine behind the gate, or take that back
    #[command(
        after_help = "Each server of a client moves to castra.toml; the client's entry becomes `castra connect`, which
carries the calls to the gate. Secrets go to files that only you can read. Comments and order stay.

Examples:
  castra wrap --dry-run
  castra wrap --client claude-code --yes
  castra wrap --undo

Exit codes: 0 done (also when there is nothing to do), 1 failed, 2 found a change and did not make it
(--dry-run, or the answer was no), or bad usage."
    )]
    Wrap(WrapArgs),
    /// Carry MCP between standard input and output and the gate (what `castra wrap` puts into clients)
    #[command(after_help = "Example:
  castra connect --server files --agent claude-code --config castra.toml

Exit codes: 0 the input ended, 1 failed, 2 bad usage.")]
    Connect(ConnectArgs),
    /// The agents that may come through the gate
    #[command(subcommand, after_help = CODES)]
    Agent(AgentCommand),
    /// The people who may use the console
    #[command(subcommand, after_help = CODES)]
    Person(PersonCommand),
    /// What agents want to do and a person has to approve
    #[command(subcommand, after_help = CODES)]
    Approval(ApprovalCommand),
    /// The other agents behind the gate, and their cards
    #[command(subcommand, after_help = CODES)]
    Peer(PeerCommand),
    /// The tools that the servers offer
    #[command(subcommand, after_help = CODES)]
    Tool(ToolCommand),
    /// What agents may use: budgets and rates
    #[command(subcommand, after_help = CODES)]
    Budget(BudgetCommand),
    /// The model routes: which versions serve, promote one, roll back
    #[command(subcommand, after_help = CODES)]
    Model(ModelCommand),
    /// The policies: check, test, explain, suggest
    #[command(subcommand, after_help = CODES)]
    Policy(PolicyCommand),
    /// Look for secrets and own patterns in a text, as the gate does
    #[command(
        after_help = "With --json: {\"findings\": [{\"kind\", \"severity\", \"confidence\", \"start\", \"end\"}]}; places count characters.

Examples:
  castra inspect notes.txt
  git diff | castra inspect --mask -

Exit codes: 0 nothing was found, 1 failed, 2 found something or bad usage."
    )]
    Inspect(InspectArgs),
    /// The log: read it, prove from it, verify it
    #[command(subcommand, after_help = CODES)]
    Log(LogCommand),
    /// Print a completion script
    #[command(after_help = "Example:
  castra completions bash > ~/.local/share/bash-completion/completions/castra

Exit codes: 0 done, 2 bad usage.")]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print what is generated from the source (for xtask)
    #[command(hide = true)]
    Schema {
        /// What to print
        what: SchemaKind,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum SchemaKind {
    /// JSON Schema of castra.toml
    Config,
    /// JSON Schema of tool manifests
    Manifest,
    /// Reference of castra.toml, Markdown
    Reference,
    /// Reference of the command line, Markdown
    Cli,
}

#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// The text; - for standard input
    pub(crate) file: PathBuf,
    /// Print the text as it would leave, masked
    #[arg(long, conflicts_with = "json")]
    pub(crate) mask: bool,
}

#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    #[command(subcommand)]
    pub(crate) part: Option<DemoPart>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DemoPart {
    /// The demo's own MCP server
    #[command(hide = true)]
    ServeNotes {
        /// The folder with the notes
        folder: PathBuf,
    },
}

#[derive(Debug, Args)]
pub(crate) struct WrapArgs {
    /// Only this client; may be repeated
    #[arg(long, value_name = "NAME", value_enum)]
    pub(crate) client: Vec<crate::wrap::ClientKind>,
    /// Leave this server (by the client's name for it) as it is; may be repeated
    #[arg(long, value_name = "NAME")]
    pub(crate) skip: Vec<String>,
    /// Show what would change and change nothing
    #[arg(long, conflicts_with = "yes")]
    pub(crate) dry_run: bool,
    /// Do not ask
    #[arg(long, short)]
    pub(crate) yes: bool,
    /// Put everything back as it was
    #[arg(long)]
    pub(crate) undo: bool,
    /// The home folder to look in [default: yours]
    #[arg(long, value_name = "DIR")]
    pub(crate) home: Option<PathBuf>,
    /// The project folder to look in [default: the current one]
    #[arg(long, value_name = "DIR")]
    pub(crate) project: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct ConnectArgs {
    /// The server, as castra.toml names it; without it, all of them, tools named server__tool
    #[arg(long, value_name = "NAME")]
    pub(crate) server: Option<ServerName>,
    /// The agent; its token is in the state folder, where `castra wrap` put it
    #[arg(long, value_name = "NAME", required_unless_present = "token_file")]
    pub(crate) agent: Option<AgentName>,
    /// A file with the agent's token, readable by its owner only
    #[arg(long, value_name = "FILE", conflicts_with = "agent")]
    pub(crate) token_file: Option<PathBuf>,
    /// The gate [default: as the configuration says]
    #[arg(long, value_name = "URL")]
    pub(crate) url: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum PeerCommand {
    /// List the configured peers and whether their cards are accepted
    #[command(after_help = "Example:
  castra peer list --json

Exit codes: 0 done, 1 failed, 2 bad usage.")]
    List,
    /// Show the accepted card, and what is different in one that waits
    #[command(after_help = "Example:
  castra peer show planner

Exit codes: 0 the card is the accepted one, 1 failed, 2 another one waits, or bad usage.")]
    Show {
        /// Its name
        name: PeerName,
    },
    /// Accept the card that a peer shows now
    #[command(after_help = "Example:
  castra peer accept planner

Exit codes: 0 done (also when nothing waits), 1 failed, 2 bad usage.")]
    Accept {
        /// Its name
        name: PeerName,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum ApprovalCommand {
    /// List what waits for a person's word, with what it is about
    #[command(after_help = "Example:
  castra approval list --json

Exit codes: 0 done (also when nothing waits), 1 failed, 2 bad usage.")]
    List {
        /// Those that were answered, used or too late as well
        #[arg(long)]
        all: bool,
    },
    /// Show one with all that the gate knows of it
    #[command(after_help = "Example:
  castra approval show lusab-babad

Exit codes: 0 done, 1 failed (also when there is none), 2 bad usage.")]
    Show {
        /// Its id
        id: String,
    },
    /// Say yes: the agent may do exactly this, once
    #[command(
        after_help = "It is good for exactly these arguments and for a few minutes ([approvals] expires).

Example:
  castra approval approve lusab-babad --reason 'the invoice is ours'

Exit codes: 0 approved, 1 failed (also when it was answered before, or it is too late), 2 bad usage."
    )]
    Approve(AnswerArgs),
    /// Say no: the agent is told so, and does not get to ask for more in this run for a while
    #[command(after_help = "Example:
  castra approval deny lusab-babad

Exit codes: 0 denied, 1 failed (also when it was answered before, or it is too late), 2 bad usage.")]
    Deny(AnswerArgs),
}

#[derive(Debug, Args)]
pub(crate) struct AnswerArgs {
    /// The id of the approval
    pub(crate) id: String,
    /// Why, for the log
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: Option<String>,
    /// Who says so [default: the user who runs this]
    #[arg(long, value_name = "NAME")]
    pub(crate) by: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum AgentCommand {
    /// Add an agent and print its token, once
    #[command(after_help = "Example:
  castra agent add build-bot --group ci --life 30d

Exit codes: 0 added, 1 failed (also when it is there already), 2 bad usage.")]
    Add {
        /// Its name
        name: AgentName,
        /// A group that it belongs to; may be repeated
        #[arg(long, value_name = "GROUP")]
        group: Vec<GroupName>,
        /// How long the token is good, such as 30d, or `never` for one without end
        #[arg(long, value_name = "TIME", default_value = "90d", value_parser = life)]
        life: Life,
        /// Write the token to this file, readable by you only, instead of printing it
        #[arg(long, value_name = "FILE")]
        to: Option<PathBuf>,
    },
    /// List the agents
    #[command(after_help = "Example:
  castra agent list --json

Exit codes: 0 done, 1 failed, 2 bad usage.")]
    List,
    /// Show an agent with its credentials (not the secrets)
    #[command(after_help = "Example:
  castra agent show build-bot

Exit codes: 0 done, 1 failed, 2 bad usage.")]
    Show {
        /// Its name
        name: AgentName,
    },
    /// Give an agent a new token; the old ones end after the overlap
    #[command(after_help = "Example:
  castra agent rotate build-bot --overlap 1h

Exit codes: 0 done, 1 failed, 2 bad usage.")]
    Rotate {
        /// Its name
        name: AgentName,
        /// How long the old tokens stay good
        #[arg(long, value_name = "TIME", default_value = "24h", value_parser = time)]
        overlap: Time<0>,
        /// How long the new token is good, or `never` for one without end
        #[arg(long, value_name = "TIME", default_value = "90d", value_parser = life)]
        life: Life,
        /// Write the token to this file, readable by you only, instead of printing it
        #[arg(long, value_name = "FILE")]
        to: Option<PathBuf>,
    },
    /// Shut an agent out, or end one of its credentials
    #[command(after_help = "Examples:
  castra agent revoke build-bot
  castra agent revoke build-bot --token 1f2e3d4c5b6a

Exit codes: 0 done, 1 failed, 2 bad usage.")]
    Revoke {
        /// Its name
        name: AgentName,
        /// Only this token, by its id
        #[arg(long, value_name = "ID", conflicts_with = "certificate")]
        token: Option<String>,
        /// Only this certificate, by its serial number
        #[arg(long, value_name = "SERIAL")]
        certificate: Option<String>,
    },
    /// Issue a client certificate to an agent
    #[command(after_help = "Writes NAME.pem, NAME.key (readable by its owner only) and ca.pem.

Example:
  castra agent cert build-bot --out certs --life 30d

Exit codes: 0 written, 1 failed, 2 bad usage.")]
    Cert {
        /// Its name
        name: AgentName,
        /// The folder to write to
        #[arg(long, value_name = "DIR", default_value = ".")]
        out: PathBuf,
        /// How long the certificate is good; at least a day
        #[arg(long, value_name = "TIME", default_value = "90d", value_parser = time)]
        life: Time<0>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum PersonCommand {
    /// Make a link with which a person enrols at the console, once, within a day
    #[command(after_help = "Example:
  castra person enroll alice

Exit codes: 0 done, 1 failed, 2 bad usage.")]
    Enroll {
        /// The person's id
        #[arg(default_value = "admin")]
        person: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum ToolCommand {
    /// List the tools that the gate has seen
    #[command(after_help = "Example:
  castra tool list --server files

Exit codes: 0 done, 1 failed, 2 bad usage.")]
    List {
        /// Only this server's
        #[arg(long, value_name = "NAME")]
        server: Option<ServerName>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum BudgetCommand {
    /// Show each account: what is spent, reserved and left, and when it begins anew
    #[command(after_help = "While a gate runs, the figures are at most some seconds old.

Example:
  castra budget list --json

Exit codes: 0 done, 1 failed, 2 bad usage.")]
    List,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ModelCommand {
    /// List the model routes with their versions and shares
    #[command(after_help = "Example:
  castra model list --json

Exit codes: 0 done, 1 failed, 2 bad usage.")]
    List,
    /// Show a route with its versions and the history of what served
    #[command(after_help = "Example:
  castra model show assistant

Exit codes: 0 done, 1 failed, 2 bad usage.")]
    Show {
        /// The route
        route: ModelName,
    },
    /// Let a version serve, alone or with a share of the calls
    #[command(
        after_help = "With --weight the version gets that percentage and the others share the rest as before.
A running gate follows within a second; what is under way ends where it began. The change is recorded.

Examples:
  castra model promote assistant v2 --weight 10
  castra model promote assistant v2

Exit codes: 0 done, 1 failed, 2 bad usage."
    )]
    Promote {
        /// The route
        route: ModelName,
        /// The version, by its id in the configuration
        version: String,
        /// Its share in percent, 1 to 100 [default: 100]
        #[arg(long, value_name = "PERCENT", value_parser = percent)]
        weight: Option<std::num::NonZeroU32>,
    },
    /// Take back the last promotion of a route; again, the one before it
    #[command(after_help = "Example:
  castra model rollback assistant

Exit codes: 0 done, 1 failed (also when nothing was promoted), 2 bad usage.")]
    Rollback {
        /// The route
        route: ModelName,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum PolicyCommand {
    /// Check the policy folder
    #[command(after_help = "Example:
  castra policy check

Exit codes: 0 good, 1 failed, 2 found errors or warnings.")]
    Check,
    /// Run policy tests: files of requests with the expected decisions
    #[command(after_help = "Example:
  castra policy test policies/tests.toml

Exit codes: 0 all pass, 1 failed, 2 some do not.")]
    Test {
        /// The files
        #[arg(required = true)]
        file: Vec<PathBuf>,
    },
    /// Explain a decision: of a recorded action, or of a request that you describe
    #[command(after_help = "Examples:
  castra policy explain 01JDG8RZ1T8V9Q4YB6N0W3K5M7
  castra policy explain --agent build-bot --tool files/write_file --args '{\"path\": \"/etc/passwd\"}'

Exit codes: 0 allowed, 1 failed, 2 denied.")]
    Explain(ExplainArgs),
    /// Write the least policy that permits what the log shows
    #[command(after_help = "Run the gate with mode = \"observe\" for a while first.

Example:
  castra policy suggest --since 7d -o policies/suggested.cedar

Exit codes: 0 done, 1 failed, 2 nothing was observed, or bad usage.")]
    Suggest {
        #[command(flatten)]
        filter: FilterArgs,
        /// Write to this file, which must not exist [default: standard output]
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Print the standard pack, the policies of flow control that stand beside your own
    #[command(
        after_help = "To change it, put a copy into your policy folder and set `standard = false` under [policy].

Example:
  castra policy standard > policies/flow.cedar

Exit codes: 0 done, 1 failed, 2 bad usage."
    )]
    Standard,
    /// Prove that nothing which a property forbids is permitted, for all requests that there can be
    #[command(
        after_help = "A property is a Cedar `forbid`: it holds when the policies permit nothing that it forbids. Without a
file the built-in properties of flow control are proved. Needs a build with the feature `prove` and the
solver cvc5 (Debian: apt-get install cvc5; or the variable CVC5).

Examples:
  castra policy prove
  castra policy prove properties/money.cedar --policies policies.new

Exit codes: 0 all hold, 1 failed, 2 some do not."
    )]
    Prove {
        /// Files of properties
        file: Vec<PathBuf>,
        /// The policies of this folder [default: those of the configuration]
        #[arg(long, value_name = "DIR")]
        policies: Option<PathBuf>,
    },
    /// Say whether a changed policy folder permits anything that the old one does not
    #[command(
        after_help = "With the feature `prove` and the solver cvc5 the answer is for all requests that there can be; without
them it is for the recorded ones, and says so.

Example:
  castra policy diff policies policies.new

Exit codes: 0 nothing more is permitted, 1 failed, 2 something is."
    )]
    Diff {
        /// The folder as it is
        old: PathBuf,
        /// The folder as it is to be
        new: PathBuf,
    },
    /// Decide the recorded traffic again under other policies
    #[command(after_help = "Example:
  castra policy simulate policies.new --since 7d

Exit codes: 0 nothing more would be permitted, 1 failed, 2 something would.")]
    Simulate {
        /// The folder of the other policies
        policies: PathBuf,
        #[command(flatten)]
        filter: FilterArgs,
    },
    /// Print the Cedar schema of the catalogue, which policies are checked against
    #[command(after_help = "Example:
  castra policy schema > castra.cedarschema

Exit codes: 0 done, 1 failed, 2 bad usage.")]
    Schema,
}

#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    /// The id of a recorded action
    #[arg(conflicts_with_all = ["agent", "tool"], required_unless_present_all = ["agent", "tool"])]
    pub(crate) action: Option<castra_core::ActionId>,
    /// The agent
    #[arg(long, value_name = "NAME", requires = "tool")]
    pub(crate) agent: Option<AgentName>,
    /// The tool, as server/tool
    #[arg(long, value_name = "SERVER/TOOL", requires = "agent")]
    pub(crate) tool: Option<String>,
    /// Its arguments, a JSON object
    #[arg(long, value_name = "JSON", requires = "agent")]
    pub(crate) args: Option<String>,
    /// The time of the request, such as 2026-11-24T12:00:00Z [default: now]
    #[arg(long, value_name = "TIME", value_parser = instant, requires = "agent")]
    pub(crate) time: Option<Timestamp>,
    /// The address that the request comes from
    #[arg(long, value_name = "IP", default_value = "127.0.0.1")]
    pub(crate) source: std::net::IpAddr,
}

#[derive(Debug, Subcommand)]
pub(crate) enum LogCommand {
    /// Show the newest records
    #[command(after_help = "Example:
  castra log tail -f

Exit codes: 0 done, 1 failed, 2 bad usage.")]
    Tail {
        /// Wait for more
        #[arg(short, long)]
        follow: bool,
        /// How many to start with
        #[arg(short = 'n', long = "lines", value_name = "N", default_value_t = 20)]
        lines: u64,
        #[command(flatten)]
        filter: FilterArgs,
    },
    /// Find records
    #[command(after_help = "Times are such as 2026-11-24T12:00:00Z, or 2h for two hours ago.

Example:
  castra log query --agent build-bot --decision deny --since 1d

Exit codes: 0 found some, 1 failed, 2 found none, or bad usage.")]
    Query {
        /// Show at most this many, the newest
        #[arg(long, value_name = "N", default_value_t = 100)]
        limit: usize,
        #[command(flatten)]
        filter: FilterArgs,
    },
    /// Show one record, or both of an action, with the recorded content if the keys are here
    #[command(after_help = "Example:
  castra log show 42

Exit codes: 0 done, 1 failed, 2 bad usage.")]
    Show {
        /// An action's id, or a record's index
        record: RecordRef,
    },
    /// Write the receipt of a record: a proof that anyone can check
    #[command(after_help = "Example:
  castra log receipt 42 -o receipt.txt

Exit codes: 0 done, 1 failed, 2 bad usage.")]
    Receipt {
        /// An action's id (the receipt of its intent), or a record's index
        record: RecordRef,
        /// Write to this file [default: standard output]
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Verify a log, or a receipt, with nothing but the public key
    #[command(after_help = "PLACE is a state folder, a copy of its log folder, or a URL of such.

Examples:
  castra log verify
  castra log verify copy-of-log --key 'castra.example+1a2b3c4d+AbCd…'
  castra log verify https://castra.example:8441/log --ca ca.pem --key 'castra.example+1a2b3c4d+AbCd…'
  castra log verify --receipt receipt.txt

Exit codes: 0 it holds, 1 failed, 2 it does not hold; the findings say where.")]
    Verify(VerifyArgs),
    /// Print the log's verifier key (signed-note form)
    #[command(after_help = "Example:
  castra log key

Exit codes: 0 done, 1 failed, 2 bad usage.")]
    Key,
}

#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// A state folder, a copy of its log folder, or a URL [default: the state folder]
    pub(crate) place: Option<String>,
    /// The verifier key; may be repeated [default: log.vkey in the state folder or beside the log]
    #[arg(long, value_name = "VKEY")]
    pub(crate) key: Vec<String>,
    /// A file with an older checkpoint that the log must continue
    #[arg(long, value_name = "FILE", conflicts_with = "receipt")]
    pub(crate) since: Option<PathBuf>,
    /// A PEM file with the CAs to trust for a URL [default: the system's]
    #[arg(long, value_name = "FILE", conflicts_with = "receipt")]
    pub(crate) ca: Option<PathBuf>,
    /// Verify this receipt instead of a log
    #[arg(long, value_name = "FILE")]
    pub(crate) receipt: Option<PathBuf>,
}

/// Which records are meant. What is not given is not asked.
#[derive(Debug, Args, Default)]
pub(crate) struct FilterArgs {
    /// Of this agent
    #[arg(long, value_name = "NAME")]
    pub(crate) agent: Option<AgentName>,
    /// On this tool, as server/tool; or on everything of a server, as server/
    #[arg(long, value_name = "SERVER/TOOL")]
    pub(crate) tool: Option<String>,
    /// With this decision
    #[arg(long, value_name = "DECISION", value_parser = decision)]
    pub(crate) decision: Option<Decision>,
    /// Of this kind
    #[arg(long, value_name = "KIND", value_enum)]
    pub(crate) kind: Option<RecordKind>,
    /// In this run
    #[arg(long, value_name = "ID")]
    pub(crate) run: Option<String>,
    /// Not before this time
    #[arg(long, value_name = "TIME", value_parser = instant)]
    pub(crate) since: Option<Timestamp>,
    /// Before this time
    #[arg(long, value_name = "TIME", value_parser = instant)]
    pub(crate) until: Option<Timestamp>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum RecordKind {
    /// What an agent set out to do, with the decision
    Intent,
    /// How it ended
    Outcome,
    /// A request that never became an action
    Refusal,
    /// Something about the gate itself
    Event,
}

/// A record, by its action or by its place in the log.
#[derive(Debug, Clone, Copy)]
pub(crate) enum RecordRef {
    /// The records of an action.
    Action(castra_core::ActionId),
    /// The record at an index.
    Index(u64),
}

impl std::str::FromStr for RecordRef {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // No index has 26 digits: that is more than a u64 holds.
        match text.parse() {
            Ok(index) => Ok(Self::Index(index)),
            Err(_) => text
                .parse()
                .map(Self::Action)
                .map_err(|_| "expected an index such as 42, or an action's id of 26 characters"),
        }
    }
}

/// How long a credential is good; none for ever.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Life(pub(crate) Option<std::time::Duration>);

fn life(text: &str) -> Result<Life, String> {
    if text == "never" {
        return Ok(Life(None));
    }
    match Time::<1000>::parse(text) {
        Some(time) => Ok(Life(Some(time.0))),
        None => Err("expected a time such as 12h or 30d, or never".into()),
    }
}

fn percent(text: &str) -> Result<std::num::NonZeroU32, String> {
    let number = text.parse().ok().filter(|n: &std::num::NonZeroU32| n.get() <= 100);
    number.ok_or_else(|| "expected a percentage from 1 to 100".into())
}

fn time(text: &str) -> Result<Time<0>, String> {
    Time::parse(text).ok_or_else(|| "expected a time such as 30s, 12h or 30d".into())
}

fn decision(text: &str) -> Result<Decision, String> {
    match text {
        "allow" => Ok(Decision::Allow),
        "deny" => Ok(Decision::Deny),
        "ask" => Ok(Decision::Ask),
        _ => Err("expected allow, deny or ask".into()),
    }
}

fn instant(text: &str) -> Result<Timestamp, String> {
    if let Some(time) = Timestamp::parse(text) {
        return Ok(time);
    }
    match Time::<0>::parse(text) {
        Some(ago) => {
            let micros = i64::try_from(ago.0.as_micros()).unwrap_or(i64::MAX);
            Ok(Timestamp(castra_store::clock::now().0.saturating_sub(micros)))
        }
        None => Err("expected a time such as 2026-11-24T12:00:00Z, or 2h for two hours ago".into()),
    }
}
