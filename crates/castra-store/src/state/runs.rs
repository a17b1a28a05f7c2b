//! What flow control keeps of runs between restarts, sealed by whoever hands it in, and the marks of what
//! they wrote.

use castra_core::{AgentName, Timestamp};
use rusqlite::{OptionalExtension, params};

use super::State;
use crate::StoreError;

/// Runs of one agent that are remembered; one more, and the one that was used the longest ago is
/// forgotten. Counted for each agent, so that none can make the gate forget another's.
const RUNS_PER_AGENT_MAX: u32 = 10_000;

/// Marks that are remembered; beyond it the oldest are forgotten.
const MARKS_MAX: u32 = 1_000_000;

/// A run as it was kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunRow {
    /// When it began.
    pub began: Timestamp,
    /// What was known of it, sealed; none if it has ended, or if more was known than was written.
    pub state: Option<Vec<u8>>,
}

/// What is to be kept of a run.
#[derive(Debug, Clone)]
pub struct RunWrite {
    /// Whose it is.
    pub agent: AgentName,
    /// Its name.
    pub run: String,
    /// When it began.
    pub began: Timestamp,
    /// When it was used last.
    pub used: Timestamp,
    /// What is kept.
    pub kept: KeptRun,
}

/// What is kept of a run.
#[derive(Debug, Clone)]
pub enum KeptRun {
    /// That a gate knows more of it than is written here.
    Held,
    /// All that is known of it, sealed.
    Whole(Vec<u8>),
    /// That it has ended.
    Ended,
}

impl State {
    /// What is kept of a run; none if there never was such a run, or it was so long ago that it is forgotten.
    pub fn run(&self, agent: &AgentName, run: &str) -> Result<Option<RunRow>, StoreError> {
        self.read(|transaction| {
            let mut statement = transaction
                .prepare_cached("SELECT began, state, held FROM runs WHERE agent = ?1 AND run = ?2")?;
            let row = statement.query_row(params![agent.as_str(), run], |row| {
                let held: bool = row.get(2)?;
                let state = if held { None } else { row.get(1)? };
                Ok(RunRow { began: Timestamp(row.get(0)?), state })
            });
            Ok(row.optional()?)
        })
    }

    /// Keeps runs and marks, in this order, all or nothing.
    pub fn keep_runs(&self, runs: &[RunWrite], marks: &[u64], now: Timestamp) -> Result<(), StoreError> {
        self.write(|transaction| {
            for write in runs {
                let (state, held) = match &write.kept {
                    KeptRun::Held => (None, true),
                    KeptRun::Whole(state) => (Some(state.as_slice()), false),
                    KeptRun::Ended => (None, false),
                };
                let mut statement = transaction.prepare_cached(
                    "INSERT INTO runs (agent, run, began, used, state, held) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
                     ON CONFLICT (agent, run) DO UPDATE SET began = ?3, used = ?4, state = ?5, held = ?6",
                )?;
                let (agent, name) = (write.agent.as_str(), write.run.as_str());
                statement.execute(params![agent, name, write.began.0, write.used.0, state, held])?;
                let mut prune = transaction.prepare_cached(
                    "DELETE FROM runs WHERE agent = ?1 AND used < (SELECT used FROM runs WHERE agent = ?1
                         ORDER BY used DESC LIMIT 1 OFFSET ?2)",
                )?;
                prune.execute(params![agent, RUNS_PER_AGENT_MAX])?;
            }
            for mark in marks {
                let mut statement = transaction
                    .prepare_cached("INSERT OR REPLACE INTO marks (mark, time) VALUES (?1, ?2)")?;
                statement.execute(params![mark.cast_signed(), now.0])?;
            }
            Ok(())
        })
    }

    /// The marks that are kept; those that are too many are forgotten with this.
    pub fn marks(&self) -> Result<Vec<u64>, StoreError> {
        self.write(|transaction| {
            transaction.execute(
                "DELETE FROM marks WHERE mark IN (SELECT mark FROM marks ORDER BY time DESC LIMIT -1 OFFSET ?1)",
                [MARKS_MAX],
            )?;
            let mut statement = transaction.prepare("SELECT mark FROM marks")?;
            let marks = statement.query_map([], |row| row.get::<_, i64>(0))?;
            Ok(marks.map(|mark| mark.map(i64::cast_unsigned)).collect::<Result<_, _>>()?)
        })
    }
}
