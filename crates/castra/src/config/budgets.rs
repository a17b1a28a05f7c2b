//! Budgets as they are written: what agents may use in a stretch of time.

use std::{borrow::Cow, fmt, path::PathBuf};

use castra_core::{AgentName, GroupName, ModelName};
use castra_gateway::budget::estimate::OUTPUT_DEFAULT;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// What all budgets share: prices, and what happens where one is not known.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Budgets {
    /// A TOML file with prices of models, besides those that Castra comes with. What stands in both is taken from
    /// the file; a file in another currency is taken alone.
    pub prices: Option<PathBuf>,
    /// What a budget of money does with a model whose price is not known: `"refuse"` it, since what cannot be counted
    /// cannot be limited, or `"allow"` it and count no money.
    pub unknown_price: UnknownPrice,
    /// Tokens that are reserved for an answer when neither the request nor the model's version limits it. Where a
    /// budget of tokens or money covers the call, the provider is told this limit.
    pub output_tokens: Quantity,
}

/// What a budget of money does with a model whose price is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum UnknownPrice {
    /// It refuses it.
    Refuse,
    /// It lets it pass and counts no money.
    Allow,
}

impl Default for Budgets {
    fn default() -> Self {
        Self { prices: None, unknown_price: UnknownPrice::Refuse, output_tokens: Quantity(OUTPUT_DEFAULT) }
    }
}

/// What may be used in a stretch of time, by whom and of which model. A call must fit every budget that covers it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(try_from = "BudgetTable")]
pub struct Budget {
    /// Its name.
    pub name: String,
    /// Of this agent only.
    pub agent: Option<AgentName>,
    /// Of agents in this group only.
    pub group: Option<GroupName>,
    /// On behalf of this person only.
    pub person: Option<String>,
    /// Of this model route only.
    pub model: Option<ModelName>,
    /// Whether each agent has it for itself.
    pub each: bool,
    /// Calls.
    pub requests: Option<Quantity>,
    /// Tokens.
    pub tokens: Option<Quantity>,
    /// Money.
    pub money: Option<Money>,
    /// The stretch of time.
    pub per: Per,
}

/// A `[[budget]]` table as it is written.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Budget")]
struct BudgetTable {
    /// Its name in refusals, lists and metrics: lower case letters, digits, `.`, `_` and `-`, at most 64. What is
    /// spent is kept under it, so a budget keeps what it counted while its limits change.
    name: String,
    /// Covers only this agent. What is given together narrows: a group and a model is that group's use of that model.
    #[schemars(with = "Option<String>")]
    agent: Option<AgentName>,
    /// Covers only agents in this group.
    #[schemars(with = "Option<String>")]
    group: Option<GroupName>,
    /// Covers only what is done on behalf of this person: the subject of the token that the agent acts with.
    person: Option<String>,
    /// Covers only this model route.
    #[schemars(with = "Option<String>")]
    model: Option<ModelName>,
    /// Each agent has the whole budget for itself. Otherwise all that it covers share it.
    #[serde(default)]
    each: bool,
    /// Calls at most: of models, tools and peers.
    requests: Option<Quantity>,
    /// Tokens at most, of requests and answers together; those from a provider's cache count too.
    tokens: Option<Quantity>,
    /// Money at most, in the price table's currency: `25` or `0.5`.
    money: Option<Money>,
    /// For how long it counts: `"minute"`, `"hour"`, `"day"` or `"month"`, as the clock and calendar of UTC have them.
    per: Per,
}

/// For how long a budget counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Per {
    /// A minute: a rate.
    Minute,
    /// An hour.
    Hour,
    /// A day.
    Day,
    /// A month.
    Month,
}

impl TryFrom<BudgetTable> for Budget {
    type Error = String;

    fn try_from(t: BudgetTable) -> Result<Self, String> {
        let edge = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b);
        let bytes = t.name.as_bytes();
        if !(edge(bytes.first())
            && edge(bytes.last())
            && bytes.len() <= 64
            && bytes.iter().all(|b| inner(*b)))
        {
            return Err(format!(
                "{:?} cannot name a budget: use 1 to 64 lower case letters, digits, '.', '_' or '-', starting and ending with a letter or digit",
                t.name.chars().take(80).collect::<String>()
            ));
        }
        if t.requests.is_none() && t.tokens.is_none() && t.money.is_none() {
            return Err(format!("budget {} limits nothing: add requests, tokens or money", t.name));
        }
        if t.each && t.agent.is_some() {
            return Err(format!(
                "budget {} is of one agent, so each means nothing: remove one of them",
                t.name
            ));
        }
        if t.person.as_deref() == Some("") {
            return Err(format!("person of budget {} is empty: name one, or leave the key out", t.name));
        }
        Ok(Self {
            name: t.name,
            agent: t.agent,
            group: t.group,
            person: t.person,
            model: t.model,
            each: t.each,
            requests: t.requests,
            tokens: t.tokens,
            money: t.money,
            per: t.per,
        })
    }
}

impl JsonSchema for Budget {
    fn schema_name() -> Cow<'static, str> {
        "Budget".into()
    }
    fn json_schema(g: &mut SchemaGenerator) -> Schema {
        BudgetTable::json_schema(g)
    }
}

/// A number of calls or tokens; zero is none at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quantity(pub u64);

impl Quantity {
    /// More than anybody uses in a month.
    const MAX: u64 = 1_000_000_000_000_000;
}

impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Quantity;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a whole number from 0 to {}", Quantity::MAX)
            }
            fn visit_i64<E: de::Error>(self, n: i64) -> Result<Quantity, E> {
                let good = u64::try_from(n).ok().filter(|n| *n <= Quantity::MAX);
                good.map(Quantity).ok_or_else(|| E::invalid_value(de::Unexpected::Signed(n), &self))
            }
        }
        d.deserialize_any(Visitor)
    }
}

impl Serialize for Quantity {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_u64(self.0)
    }
}

impl JsonSchema for Quantity {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Quantity".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "integer", "minimum": 0, "maximum": Self::MAX })
    }
}

/// An amount of money in millionths of its currency, written as people do: `25` or `0.5`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Money(pub u64);

impl Money {
    /// Whole units at most. Up to there a millionth is told apart in a floating-point number.
    const MAX: u32 = 1_000_000_000;
    const MICROS: u64 = 1_000_000;
}

impl<'de> Deserialize<'de> for Money {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Money;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "an amount of money from 0 to {}, such as 25 or 0.5", Money::MAX)
            }
            fn visit_i64<E: de::Error>(self, n: i64) -> Result<Money, E> {
                let good = u64::try_from(n).ok().filter(|n| *n <= u64::from(Money::MAX));
                good.map(|n| Money(n * Money::MICROS))
                    .ok_or_else(|| E::invalid_value(de::Unexpected::Signed(n), &self))
            }
            fn visit_f64<E: de::Error>(self, x: f64) -> Result<Money, E> {
                let good = (0.0..=f64::from(Money::MAX)).contains(&x);
                // Within 2^53, so the rounded number is exact.
                let micros = (x * 1e6).round() as u64;
                if good { Ok(Money(micros)) } else { Err(E::invalid_value(de::Unexpected::Float(x), &self)) }
            }
        }
        d.deserialize_any(Visitor)
    }
}

impl JsonSchema for Money {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Money".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "number", "minimum": 0, "maximum": Self::MAX })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Config;

    fn budgets(text: &str) -> Result<Vec<Budget>, String> {
        let config = Config::parse(text, Path::new(""))
            .map_err(|problems| problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))?;
        Ok(config.budget)
    }

    #[test]
    fn a_budget_is_read() {
        let text = "[[budget]]\nname = \"ci-day\"\ngroup = \"ci\"\nmodel = \"gpt-4.1\"\neach = true\n\
                    tokens = 2_000_000\nmoney = 12.5\nper = \"day\"\n";
        let read = &budgets(text).unwrap()[0];
        assert_eq!((read.tokens, read.money), (Some(Quantity(2_000_000)), Some(Money(12_500_000))));
        assert_eq!((read.requests, read.each, read.per), (None, true, Per::Day));
    }

    #[test]
    fn what_makes_no_sense_is_said() {
        let base = "[[budget]]\nname = \"a\"\nper = \"day\"\n";
        for (more, says) in [
            ("", "limits nothing"),
            ("requests = -1", "a whole number from 0"),
            ("requests = 1.5", "a whole number from 0"),
            ("money = -0.1", "an amount of money"),
            ("money = nan", "an amount of money"),
            ("money = 2e9", "an amount of money"),
            ("money = \"5\"", "an amount of money"),
            ("requests = 1\nagent = \"x\"\neach = true", "each means nothing"),
            ("requests = 1\nperson = \"\"", "is empty"),
            ("requests = 1\ngruop = \"x\"", "did you mean \"group\"?"),
            ("requests = 1\n[[budget]]\nname = \"a\"\nper = \"hour\"\nrequests = 1", "names are unique"),
        ] {
            let said = budgets(&format!("{base}{more}\n")).unwrap_err();
            assert!(said.contains(says), "{more}: {said}");
        }
        let named =
            |name: &str| budgets(&format!("[[budget]]\nname = {name:?}\nper = \"day\"\nrequests = 1\n"));
        for bad in ["", "A", "-a", "a/b", &"a".repeat(65)] {
            assert!(named(bad).unwrap_err().contains("cannot name a budget"), "{bad}");
        }
        assert!(
            budgets("[[budget]]\nname = \"a\"\nrequests = 1\nper = \"week\"\n").unwrap_err().contains("week")
        );
    }
}
