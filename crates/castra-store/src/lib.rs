//! Everything on disk: SQLite state, the log and its journal, files.
#![allow(clippy::disallowed_methods)] // the rightful place of files and of the program's clock
