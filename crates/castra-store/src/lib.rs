//! Everything on disk: SQLite state, the log and its journal, files.
