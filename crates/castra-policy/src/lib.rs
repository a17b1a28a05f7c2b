//! Decides what agents may do: Cedar policies, default deny, validated against a schema that is
//! generated from the catalogue.
//!
//! [`Engine::load`] reads policies, [`Engine::decide`] answers one question in a few microseconds
//! however many policies there are, [`Engine::explain`] tells the whole story, [`suggest`] writes
//! policies from what was observed, [`run_tests`] checks what policies are meant to do. Nothing here
//! does input or output.

mod arguments;
mod catalogue;
mod clauses;
mod context;
mod engine;
mod explain;
mod names;
mod parallel;
mod policies;
mod problem;
mod reads;
mod schema;
mod scope;
mod slice;
mod starter;
mod suggest;
mod tests_file;
mod tokens;
mod types;

pub use catalogue::{Catalogue, CatalogueServer, CatalogueTool};
pub use context::{DecisionRequest, Particulars};
pub use engine::Engine;
pub use explain::{ExplainedCondition, ExplainedPolicy, Explanation, PolicyOutcome};
pub use policies::PolicySource;
pub use problem::{PolicyProblems, Problem};
pub use schema::schema_text;
pub use starter::{STANDARD_FILE, STARTER_POLICY, standard_policies};
pub use suggest::{Observation, suggest};
pub use tests_file::{TestFailure, TestFileError, TestReport, run_tests};
