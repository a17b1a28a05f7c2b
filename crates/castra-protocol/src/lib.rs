//! Bytes to actions and decisions to bytes: MCP in both eras.
