//! Every limit, in one place, with its reason. Reaching one is a recorded refusal.

use std::time::Duration;

/// The limits of a gate. The defaults are meant for one machine; `castra.toml` can change them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a request body. Tool arguments carry files, so not less than some MiB; each body is
    /// held in memory once, so not more.
    pub body_bytes_max: usize,
    /// Bytes of an upstream's whole answer, or of one event of a stream.
    pub answer_bytes_max: usize,
    /// Bytes of all headers of a request (hyper keeps them in memory).
    pub header_bytes_max: usize,
    /// Levels of arrays and objects in JSON. Parsers on both sides recurse.
    pub json_depth_max: usize,
    /// Connections at once; the file descriptor limit of the process is the ceiling.
    pub connections_max: usize,
    /// Calls in flight of one agent, so that one agent cannot starve the others.
    pub calls_per_agent_max: usize,
    /// Sessions of one agent (legacy MCP), so that sessions cannot fill the memory.
    pub sessions_per_agent_max: usize,
    /// Calls that wait for a client's input (bridged elicitation and sampling) per agent.
    pub parked_per_agent_max: usize,
    /// Child processes of one configured server over all agents.
    pub children_per_server_max: usize,
    /// A TLS handshake must end within this time; an open socket costs memory.
    pub handshake_time_max: Duration,
    /// The head of a request must be there within this time (slow senders).
    pub head_time_max: Duration,
    /// The body of a request must be there within this time (slow senders).
    pub body_time_max: Duration,
    /// A connection without a request is closed after this time.
    pub idle_time_max: Duration,
    /// One call, from forwarding to its final answer. Long-running tools use tasks or progress.
    pub call_time_max: Duration,
    /// A stream without an event is ended after this time.
    pub stream_idle_max: Duration,
    /// Connecting to an upstream and its handshake.
    pub connect_time_max: Duration,
    /// Starting an upstream's process and its handshake: a first `npx` or `uvx` downloads the server.
    pub start_time_max: Duration,
    /// A session that is not used for this long is forgotten.
    pub session_idle_max: Duration,
    /// A call waits this long for the client's input. The call's own time goes on, so less than that.
    pub parked_time_max: Duration,
    /// Calls in flight get this long to finish at shutdown before they are cancelled.
    pub drain_time_max: Duration,
    /// Records that wait to be written; beyond it actions are refused rather than forgotten.
    pub records_waiting_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes_max: 8 << 20,
            answer_bytes_max: 32 << 20,
            header_bytes_max: 32 << 10,
            json_depth_max: 64,
            connections_max: 4096,
            calls_per_agent_max: 256,
            sessions_per_agent_max: 64,
            parked_per_agent_max: 32,
            children_per_server_max: 32,
            handshake_time_max: Duration::from_secs(10),
            head_time_max: Duration::from_secs(15),
            body_time_max: Duration::from_secs(30),
            idle_time_max: Duration::from_secs(120),
            call_time_max: Duration::from_secs(300),
            stream_idle_max: Duration::from_secs(300),
            connect_time_max: Duration::from_secs(10),
            start_time_max: Duration::from_secs(60),
            session_idle_max: Duration::from_secs(3600),
            parked_time_max: Duration::from_secs(240),
            drain_time_max: Duration::from_secs(20),
            records_waiting_max: 65_536,
        }
    }
}
