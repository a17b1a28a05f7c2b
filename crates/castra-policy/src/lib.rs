//! Cedar decisions: slices, schema, explanations, suggestions.
