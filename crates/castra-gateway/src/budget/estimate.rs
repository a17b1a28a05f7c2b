//! How many tokens a call may use, before a provider has counted them.
//!
//! A tokenizer is not at hand for every model, so bytes are counted. English text has about four bytes to
//! a token, source code three, text in other scripts two to four, and a request has JSON around it that is
//! no token at all. Two bytes to a token is therefore more than almost every request uses: budgets err on
//! the side of refusing, until the provider's own count puts it right.

/// Bytes that are taken for a token.
pub const BYTES_PER_TOKEN: u64 = 2;

/// Tokens that are reserved for an answer when neither the request nor the model's version says how long
/// it may get, unless the configuration has another number.
pub const OUTPUT_DEFAULT: u64 = 4096;

/// Tokens of so many bytes, at most.
pub fn tokens(bytes: u64) -> u64 {
    bytes.div_ceil(BYTES_PER_TOKEN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_token_is_a_token() {
        assert_eq!((tokens(0), tokens(1), tokens(2), tokens(3)), (0, 1, 1, 2));
        assert_eq!(tokens(u64::MAX), u64::MAX / 2 + 1);
    }
}
