//! What models cost: rates per million tokens, and what a call comes to.

use std::{collections::HashMap, sync::Arc};

use super::amounts::Amounts;

/// Rates, in millionths of the currency per million tokens. So a rate is what one token costs in
/// millionths of a millionth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rates {
    /// Tokens of the request.
    pub input: u64,
    /// Those of them that the provider had in its cache.
    pub cached_input: u64,
    /// Those of them that it put into its cache.
    pub cache_write: u64,
    /// Tokens of the answer.
    pub output: u64,
}

/// The price of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Price {
    /// For requests of ordinary length.
    pub rates: Rates,
    /// For a whole request that has more input tokens than the number.
    pub long: Option<(u64, Rates)>,
}

/// Tokens that a call used. Each is counted once: what came from the cache or went into it is not
/// `input`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Used {
    /// Of the request, neither read from the provider's cache nor put into it.
    pub input: u64,
    /// Of the request, read from the provider's cache.
    pub cached_input: u64,
    /// Of the request, put into the provider's cache.
    pub cache_write: u64,
    /// Of the answer, what the model thought included.
    pub output: u64,
}

impl Used {
    /// From what a provider reported, where the request's tokens are told as a whole. Parts that are more
    /// than the whole, which no honest provider says, count beside it.
    pub fn reported(all_input: u64, cached_input: u64, cache_write: u64, output: u64) -> Self {
        let input = all_input.saturating_sub(cached_input).saturating_sub(cache_write);
        Self { input, cached_input, cache_write, output }
    }

    /// All tokens of the request.
    pub fn all_input(&self) -> u64 {
        self.input.saturating_add(self.cached_input).saturating_add(self.cache_write)
    }

    /// All tokens.
    pub fn tokens(&self) -> u64 {
        self.all_input().saturating_add(self.output)
    }

    pub(crate) fn amounts(&self, cost: Option<u64>) -> Amounts {
        Amounts { requests: 1, tokens: self.tokens(), money: cost.unwrap_or(0) }
    }
}

/// Tokens that a call may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tokens {
    /// For the request.
    pub input: u64,
    /// For the answer or answers.
    pub output: u64,
}

impl Price {
    /// What a call came to, rounded up to a millionth of the currency.
    pub fn cost(&self, used: &Used) -> u64 {
        let rates = self.rates_for(used.all_input());
        bill([
            (used.input, rates.input),
            (used.cached_input, rates.cached_input),
            (used.cache_write, rates.cache_write),
            (used.output, rates.output),
        ])
    }

    /// The most that a call can come to: all of its input at the dearer of the input's and the
    /// cache's rate.
    pub fn most(&self, tokens: Tokens) -> u64 {
        let rates = self.rates_for(tokens.input);
        bill([(tokens.input, rates.input.max(rates.cache_write)), (tokens.output, rates.output)])
    }

    fn rates_for(&self, input: u64) -> Rates {
        match self.long {
            Some((above, rates)) if input > above => rates,
            _ => self.rates,
        }
    }
}

fn bill<const N: usize>(items: [(u64, u64); N]) -> u64 {
    // A product of two 64-bit numbers fits in 128 bits, and so do a handful of sums short of the top.
    let sum = items
        .into_iter()
        .fold(0_u128, |sum, (tokens, rate)| sum.saturating_add(u128::from(tokens) * u128::from(rate)));
    u64::try_from(sum.div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

/// A model with its price, if that is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Priced {
    /// The provider's name for the model.
    pub model: Arc<str>,
    /// Its price.
    pub price: Option<Arc<Price>>,
}

/// A price table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prices {
    /// What it counts in, such as `USD`.
    pub currency: Arc<str>,
    /// The day on which the prices were right, as `YYYY-MM-DD`.
    pub as_of: Arc<str>,
    models: HashMap<String, Vec<Entry>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    provider: Option<String>,
    price: Arc<Price>,
}

impl Default for Prices {
    fn default() -> Self {
        Self { currency: "USD".into(), as_of: "1970-01-01".into(), models: HashMap::new() }
    }
}

impl Prices {
    /// A table without prices.
    pub fn new(currency: &str, as_of: &str) -> Self {
        Self { currency: currency.into(), as_of: as_of.into(), models: HashMap::new() }
    }

    /// Adds a price: of a model at one provider (by the word for its kind), or at any. One that is there
    /// already is replaced.
    pub fn insert(&mut self, provider: Option<&str>, model: &str, price: Price) {
        let entries = self.models.entry(model.to_owned()).or_default();
        entries.retain(|entry| entry.provider.as_deref() != provider);
        entries.push(Entry { provider: provider.map(str::to_owned), price: Arc::new(price) });
    }

    /// Takes the prices of another table over its own; the date is the older one, so that it promises
    /// nothing that is not so.
    pub fn overrule(&mut self, other: Self) {
        for (model, entries) in other.models {
            for entry in entries {
                self.insert(entry.provider.as_deref(), &model, *entry.price);
            }
        }
        self.as_of = self.as_of.clone().min(other.as_of);
    }

    /// Every price, in no order.
    pub fn all(&self) -> impl Iterator<Item = (&str, &Price)> {
        self.models.iter().flat_map(|(model, entries)| entries.iter().map(|e| (model.as_str(), &*e.price)))
    }

    /// How many models have a price.
    pub fn len(&self) -> usize {
        self.models.len()
    }

    /// Whether no model has a price.
    pub fn is_empty(&self) -> bool {
        self.models.is_empty()
    }

    /// The price of a model: under its own name, else under the name without a date at its end, which is
    /// how providers call a snapshot of the same model.
    pub fn find(&self, provider: &str, model: &str) -> Option<Arc<Price>> {
        let model = model.strip_prefix("models/").unwrap_or(model);
        self.exactly(provider, model).or_else(|| self.exactly(provider, without_date(model)?))
    }

    fn exactly(&self, provider: &str, model: &str) -> Option<Arc<Price>> {
        let entries = self.models.get(model)?;
        let of = |wanted: Option<&str>| entries.iter().find(|e| e.provider.as_deref() == wanted);
        of(Some(provider)).or_else(|| of(None)).map(|entry| entry.price.clone())
    }
}

/// `name-2026-11-18`, `name-20261118` or `name@20261118` without the date.
fn without_date(model: &str) -> Option<&str> {
    ["-####-##-##", "-########", "@########"].into_iter().find_map(|pattern| {
        let (name, end) = model.split_at_checked(model.len().checked_sub(pattern.len())?)?;
        let fits = |(b, p): (u8, u8)| if p == b'#' { b.is_ascii_digit() } else { b == p };
        (!name.is_empty() && end.bytes().zip(pattern.bytes()).all(fits)).then_some(name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rates(input: u64, output: u64) -> Rates {
        Rates { input, cached_input: input / 10, cache_write: input * 5 / 4, output }
    }

    #[test]
    fn a_call_costs_what_the_table_says_rounded_up() {
        // 2 and 10 of the currency per million tokens.
        let price = Price { rates: rates(2_000_000, 10_000_000), long: None };
        let used = Used { input: 1000, cached_input: 500, cache_write: 100, output: 200 };
        assert_eq!(used.tokens(), 1800);
        // 2000 + 100 + 250 + 2000 millionths.
        assert_eq!(price.cost(&used), 4350);
        assert_eq!(used, Used::reported(1600, 500, 100, 200));
        assert_eq!(Used::reported(1, 2, 3, 0), Used { cached_input: 2, cache_write: 3, ..Used::default() });
        assert_eq!(price.cost(&Used { cached_input: 1, ..Used::default() }), 1);
        assert_eq!(price.cost(&Used::default()), 0);
        assert_eq!(price.most(Tokens { input: 1000, output: 200 }), 2500 + 2000);
        let endless = Used { input: u64::MAX, output: u64::MAX, ..Used::default() };
        assert_eq!(price.cost(&endless), u64::MAX);
        assert_eq!(endless.tokens(), u64::MAX);
    }

    #[test]
    fn long_requests_have_rates_of_their_own() {
        let price = Price {
            rates: rates(2_000_000, 10_000_000),
            long: Some((272_000, rates(4_000_000, 15_000_000))),
        };
        let used = |input, cached_input| Used { input, cached_input, output: 0, ..Used::default() };
        assert_eq!(price.cost(&used(272_000, 0)), 544_000);
        assert_eq!(price.cost(&used(272_001, 0)), 1_088_004);
        // What came from the cache counts for the length.
        assert_eq!(price.cost(&used(272_000, 1)), 1_088_001);
    }

    #[test]
    fn snapshots_cost_what_their_model_costs() {
        let mut prices = Prices::new("USD", "2026-11-25");
        let price = |input| Price { rates: rates(input, 0), long: None };
        prices.insert(None, "m-1", price(1));
        prices.insert(None, "m-1-20260101", price(2));
        prices.insert(Some("azure"), "m-1", price(3));
        let input = |provider, model| prices.find(provider, model).map(|p| p.rates.input);
        for (model, expected) in [
            ("m-1", Some(1)),
            ("models/m-1", Some(1)),
            ("m-1-2026-11-18", Some(1)),
            ("m-1@20261118", Some(1)),
            ("m-1-20260101", Some(2)),
            ("m-1-mini", None),
            ("m-1-2026-11", None),
            ("-20261118", None),
            ("M-1", None),
            ("", None),
            ("é-20261118", None),
        ] {
            assert_eq!(input("openai", model), expected, "{model}");
        }
        assert_eq!(input("azure", "m-1"), Some(3));
        prices.insert(None, "m-1", price(9));
        assert_eq!(prices.find("openai", "m-1").map(|p| p.rates.input), Some(9));
    }
}
