//! Price tables: what models cost, as TOML that people keep. One comes with Castra; an operator's own file
//! adds to it and overrules it.

use std::path::Path;

use castra_core::Timestamp;
use castra_gateway::budget::{Price, Prices, Rates};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::{
    config::{Money, Problem, Quantity, read_file, read_strictly},
    out::Failure,
};

/// The table that Castra comes with.
const SHIPPED: &str = include_str!("../data/prices.toml");

/// A price table as it is written.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PriceTable {
    /// What the prices are in, such as `"USD"`.
    currency: String,
    /// The day on which they were right, such as `"2026-11-25"`.
    as_of: String,
    /// A model. One table per model.
    #[serde(default)]
    model: Vec<ModelPrice>,
}

/// Prices are per million tokens.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ModelPrice {
    /// The provider's name for the model; a dated snapshot of it (`name-2026-11-18`) costs the same.
    name: String,
    /// Only at this kind of provider, by the word that `[[model.version]]` has for it.
    provider: Option<String>,
    /// Tokens of the request.
    input: Money,
    /// Those of them that the provider had in its cache. Left out: as `input`.
    cached_input: Option<Money>,
    /// Those of them that it put into its cache. Left out: as `input`.
    cache_write: Option<Money>,
    /// Tokens of the answer.
    output: Money,
    /// Other prices for requests with many tokens.
    long: Option<LongPrice>,
}

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct LongPrice {
    /// They hold for a whole request that has more tokens than this.
    above: Quantity,
    input: Money,
    cached_input: Option<Money>,
    cache_write: Option<Money>,
    output: Money,
}

impl PriceTable {
    /// Reads a table.
    pub fn parse(text: &str) -> Result<Prices, Vec<Problem>> {
        let (table, _) = read_strictly::<Self>(text)?;
        let mut problems = Vec::new();
        let mut say = |key: &str, what: String| problems.push(Problem { line: 1, key: key.into(), what });
        if table.currency.is_empty() || table.currency.len() > 16 || !plain(&table.currency) {
            say("currency", "expected a currency such as \"USD\"".into());
        }
        if Timestamp::parse(&format!("{}T00:00:00Z", table.as_of)).is_none() {
            say("as_of", "expected a day such as \"2026-11-25\"".into());
        }
        let mut prices = Prices::new(&table.currency, &table.as_of);
        for (index, model) in table.model.iter().enumerate() {
            let same = |other: &ModelPrice| other.name == model.name && other.provider == model.provider;
            if model.name.is_empty() || !plain(&model.name) {
                say("model", format!("model {} has no name that a provider could use", index + 1));
            } else if table.model.iter().take(index).any(same) {
                say(&format!("model.{}", model.name), "this model stands here twice".into());
            }
            prices.insert(model.provider.as_deref(), &model.name, price(model));
        }
        if problems.is_empty() { Ok(prices) } else { Err(problems) }
    }
}

/// The table that Castra comes with, and over it the operator's own.
pub(crate) fn load(own: Option<&Path>) -> Result<Prices, Failure> {
    let mut prices =
        PriceTable::parse(SHIPPED).map_err(|problems| wrong("the built-in price table", &problems))?;
    let Some(file) = own else { return Ok(prices) };
    let text = read_file(file)?;
    let theirs =
        PriceTable::parse(&text).map_err(|problems| wrong(&file.display().to_string(), &problems))?;
    if theirs.currency != prices.currency {
        return Ok(theirs);
    }
    prices.overrule(theirs);
    Ok(prices)
}

fn wrong(what: &str, problems: &[Problem]) -> Failure {
    let listed: String = problems.iter().map(|p| format!("\n  {p}")).collect();
    Failure::new(format!("{what} is not good:{listed}"))
        .advise("Mend the table; the how-to on budgets shows its form.")
}

fn plain(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_graphic())
}

fn price(model: &ModelPrice) -> Price {
    let rates = rates(model.input, model.cached_input, model.cache_write, model.output);
    let long = model.long.as_ref().map(|long| {
        (long.above.0, self::rates(long.input, long.cached_input, long.cache_write, long.output))
    });
    Price { rates, long }
}

fn rates(input: Money, cached: Option<Money>, write: Option<Money>, output: Money) -> Rates {
    Rates {
        input: input.0,
        cached_input: cached.unwrap_or(input).0,
        cache_write: write.unwrap_or(input).0,
        output: output.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "currency = \"USD\"\nas_of = \"2026-11-25\"\n";

    #[test]
    fn the_shipped_table_is_good() {
        let prices = load(None).unwrap();
        assert_eq!(&*prices.currency, "USD");
        let rates = |provider, model| prices.find(provider, model).map(|p| p.rates);
        assert_eq!(rates("openai", "gpt-4.1-mini-2025-04-14").map(|r| r.input), Some(400_000));
        assert_eq!(rates("anthropic", "claude-haiku-4-5-20251001").map(|r| r.output), Some(5_000_000));
        // What comes from a cache is never dearer than what does not, and no price is a slip of zeros.
        assert!(prices.len() >= 20);
        for (model, price) in prices.all() {
            for rates in [Some(price.rates), price.long.map(|l| l.1)].into_iter().flatten() {
                assert!(rates.cached_input <= rates.input && rates.input <= rates.cache_write, "{model}");
                assert!((1..100_000_000).contains(&rates.input), "{model}");
                assert!(rates.output == 0 || rates.output >= rates.input, "{model}");
            }
        }
    }

    #[test]
    fn an_own_table_adds_and_overrules() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("prices.toml");
        let write = |text: &str| castra_store::files::write_atomic(&file, text.as_bytes(), 0o600).unwrap();
        let own = "[[model]]\nname = \"llama3.1:8b\"\ninput = 0\noutput = 0\n\
                   [[model]]\nname = \"gpt-4.1\"\ninput = 1.25\noutput = 7\n";
        write(&format!("{HEAD}{own}"));
        let input = |model: &str| load(Some(&file)).unwrap().find("x", model).map(|p| p.rates.input);
        assert_eq!((input("llama3.1:8b"), input("gpt-4.1")), (Some(0), Some(1_250_000)));
        assert!(input("gpt-4.1-mini").is_some());
        write(&format!("currency = \"EUR\"\nas_of = \"2026-11-25\"\n{own}"));
        assert_eq!((input("llama3.1:8b"), input("gpt-4.1-mini")), (Some(0), None));
    }

    #[test]
    fn what_is_wrong_is_said() {
        let model = "[[model]]\nname = \"m\"\n";
        for (text, says) in [
            ("".to_owned(), "currency"),
            ("currency = \"USD\"\nas_of = \"yesterday\"\n".into(), "as_of"),
            ("currency = \"U S\"\nas_of = \"2026-11-25\"\n".into(), "currency"),
            (format!("{HEAD}{model}input = 1\n"), "output"),
            (format!("{HEAD}{model}input = -1\noutput = 1\n"), "an amount of money"),
            (format!("{HEAD}{model}input = 1\noutput = 1\ninptu = 1\n"), "did you mean"),
            (format!("{HEAD}{model}input = 1\noutput = 1\n{model}input = 2\noutput = 1\n"), "twice"),
        ] {
            let problems = PriceTable::parse(&text).unwrap_err();
            assert!(problems.iter().any(|p| p.to_string().contains(says)), "{says}: {problems:?}");
        }
    }
}
