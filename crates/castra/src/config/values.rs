//! The kinds of value that configuration keys take: sizes, times, counts, URLs and texts that may
//! stand elsewhere. Each reads itself strictly and says what it would have taken.

use std::{borrow::Cow, fmt, path::PathBuf, time::Duration};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A number of bytes: an integer, or a text with a unit (`"8 MiB"`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size(pub usize);

impl Size {
    /// Largest size that is taken; nothing of Castra is held in memory beyond it.
    const MAX: u64 = 4 << 30;

    fn parse(text: &str) -> Option<u64> {
        let split = text.find(|c: char| !c.is_ascii_digit())?;
        let (number, unit) = text.split_at_checked(split)?;
        let shift = match unit.trim_start() {
            "B" => 0,
            "KiB" => 10,
            "MiB" => 20,
            "GiB" => 30,
            _ => return None,
        };
        number.parse::<u64>().ok()?.checked_mul(1 << shift)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (shift, unit) in [(30, "GiB"), (20, "MiB"), (10, "KiB")] {
            if self.0 != 0 && self.0.trailing_zeros() >= shift {
                return write!(f, "{} {unit}", self.0 >> shift);
            }
        }
        write!(f, "{} B", self.0)
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Size;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a size of 1 B to 4 GiB, such as 8388608 or \"8 MiB\" (B, KiB, MiB, GiB)")
            }
            fn visit_i64<E: de::Error>(self, n: i64) -> Result<Size, E> {
                let size = u64::try_from(n).ok().and_then(in_range);
                size.ok_or_else(|| E::invalid_value(de::Unexpected::Signed(n), &self))
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Size, E> {
                let size = Size::parse(text).and_then(in_range);
                size.ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
            }
        }
        fn in_range(n: u64) -> Option<Size> {
            let good = (1..=Size::MAX).contains(&n);
            usize::try_from(n).ok().filter(|_| good).map(Size)
        }
        d.deserialize_any(Visitor)
    }
}

impl JsonSchema for Size {
    fn schema_name() -> Cow<'static, str> {
        "Size".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A number of bytes, or a text with a unit (B, KiB, MiB, GiB).",
            "anyOf": [
                { "type": "integer", "minimum": 1, "maximum": Size::MAX },
                { "type": "string", "pattern": "^[0-9]+ *(B|KiB|MiB|GiB)$" }
            ]
        })
    }
}

/// A length of time with its unit: `"250ms"`, `"30s"`, `"5m"`, `"1h"`, `"30d"`. `MIN_MS` is the
/// shortest that is taken, in milliseconds: a limit of no time would refuse everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Time<const MIN_MS: u64 = 1>(pub Duration);

impl<const MIN_MS: u64> Time<MIN_MS> {
    /// Ten years; longer is a slip.
    const MAX_MS: u64 = 3_653 * 86_400_000;

    /// Reads a number and a unit without a space.
    pub fn parse(text: &str) -> Option<Self> {
        let split = text.find(|c: char| !c.is_ascii_digit())?;
        let (number, unit) = text.split_at_checked(split)?;
        let scale = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return None,
        };
        let ms = number.parse::<u64>().ok()?.checked_mul(scale)?;
        (MIN_MS..=Self::MAX_MS).contains(&ms).then(|| Self(Duration::from_millis(ms)))
    }
}

impl<const MIN_MS: u64> fmt::Display for Time<MIN_MS> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.0.as_millis();
        for (scale, unit) in [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s")] {
            if ms != 0 && ms.is_multiple_of(scale) {
                return write!(f, "{}{unit}", ms / scale);
            }
        }
        write!(f, "{ms}ms")
    }
}

impl<'de, const MIN_MS: u64> Deserialize<'de> for Time<MIN_MS> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Visitor<const MIN_MS: u64>;
        impl<const MIN_MS: u64> de::Visitor<'_> for Visitor<MIN_MS> {
            type Value = Time<MIN_MS>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a time such as \"250ms\", \"30s\", \"5m\", \"1h\" or \"30d\"")?;
                if MIN_MS > 0 { write!(f, ", at least {MIN_MS}ms") } else { Ok(()) }
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
                Time::parse(text).ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
            }
        }
        d.deserialize_any(Visitor)
    }
}

impl<const MIN_MS: u64> JsonSchema for Time<MIN_MS> {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Time".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^[0-9]+(ms|s|m|h|d)$" })
    }
}

/// A number of things, from 1 to `MAX`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Count<const MAX: u32>(pub usize);

impl<const MAX: u32> fmt::Display for Count<MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<'de, const MAX: u32> Deserialize<'de> for Count<MAX> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Visitor<const MAX: u32>;
        impl<const MAX: u32> de::Visitor<'_> for Visitor<MAX> {
            type Value = Count<MAX>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a whole number from 1 to {MAX}")
            }
            fn visit_i64<E: de::Error>(self, n: i64) -> Result<Self::Value, E> {
                let good = (1..=i64::from(MAX)).contains(&n);
                let count = usize::try_from(n).ok().filter(|_| good).map(Count);
                count.ok_or_else(|| E::invalid_value(de::Unexpected::Signed(n), &self))
            }
        }
        d.deserialize_any(Visitor)
    }
}

impl<const MAX: u32> JsonSchema for Count<MAX> {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        format!("Count{MAX}").into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "integer", "minimum": 1, "maximum": MAX })
    }
}

/// An absolute `http` or `https` URL without user, password or fragment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url(http::Uri);

impl Url {
    /// What [`Url::parse`] takes, for messages.
    pub const RULE: &str =
        "an http or https URL such as \"https://tickets.example/mcp\", without user, password or fragment";

    /// Reads a URL.
    pub fn parse(text: &str) -> Option<Self> {
        let uri: http::Uri = text.parse().ok()?;
        let scheme = matches!(uri.scheme_str(), Some("http" | "https"));
        let host = uri.authority().is_some_and(|a| !a.host().is_empty() && !a.as_str().contains('@'));
        (scheme && host && !text.contains('#')).then_some(Self(uri))
    }

    /// The URL for a client.
    pub fn uri(&self) -> &http::Uri {
        &self.0
    }

    /// The host: a name, or an address (IPv6 without brackets).
    pub fn host(&self) -> &str {
        self.0.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']')
    }

    /// Whether what is sent stays secret and untouched on its way: TLS, or this machine itself.
    pub fn is_protected(&self) -> bool {
        let address = self.host().parse::<std::net::IpAddr>();
        self.0.scheme_str() == Some("https")
            || address.is_ok_and(|a| a.is_loopback())
            || self.host().eq_ignore_ascii_case("localhost")
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<'de> Deserialize<'de> for Url {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        // The text itself is not shown: people put passwords into URLs.
        Self::parse(&text).ok_or_else(|| de::Error::custom(format_args!("expected {}", Self::RULE)))
    }
}

impl JsonSchema for Url {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Url".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "uri", "pattern": "^https?://[^@#]+$" })
    }
}

/// A text that may stand elsewhere: `"env:NAME"` takes it from the environment of `castra`,
/// `"file:PATH"` from a file (one line end at its end is dropped), anything else is the text itself;
/// `"text:…"` is the rest of it as it is.
#[derive(Clone, PartialEq, Eq)]
pub enum Text {
    /// The text itself.
    Plain(String),
    /// The name of a variable of castra's own environment.
    Env(String),
    /// A file that holds the text.
    File(PathBuf),
}

impl Text {
    fn parse(text: &str) -> Result<Self, &'static str> {
        if let Some(name) = text.strip_prefix("env:") {
            let good = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
            return if good {
                Ok(Self::Env(name.into()))
            } else {
                Err("expected env:NAME with letters, digits and _")
            };
        }
        if let Some(path) = text.strip_prefix("file:") {
            return if path.is_empty() { Err("expected file:PATH") } else { Ok(Self::File(path.into())) };
        }
        Ok(Self::Plain(text.strip_prefix("text:").unwrap_or(text).into()))
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain(_) => f.write_str("Plain(…)"),
            Self::Env(name) => write!(f, "Env({name})"),
            Self::File(path) => write!(f, "File({})", path.display()),
        }
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(d)?).map_err(de::Error::custom)
    }
}

impl JsonSchema for Text {
    fn schema_name() -> Cow<'static, str> {
        "Text".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A text. `env:NAME` takes it from the environment of castra, `file:PATH` from a file (one line end at its end is dropped), `text:…` is the rest as it is.",
            "type": "string"
        })
    }
}

/// Whether a listener speaks TLS, and with which certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tls {
    /// Plain HTTP; only on a loopback address.
    Off,
    /// TLS with a certificate of Castra's own CA.
    Auto,
    /// TLS with the given files.
    Files {
        /// The certificate chain, PEM.
        cert: PathBuf,
        /// Its private key, PEM.
        key: PathBuf,
    },
}

impl<'de> Deserialize<'de> for Tls {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Tls;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"off\", \"auto\" or { cert = \"FILE\", key = \"FILE\" }")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Tls, E> {
                match text {
                    "off" => Ok(Tls::Off),
                    "auto" => Ok(Tls::Auto),
                    _ => Err(E::invalid_value(de::Unexpected::Str(text), &self)),
                }
            }
            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<Tls, A::Error> {
                let files = TlsFiles::deserialize(de::value::MapAccessDeserializer::new(map))?;
                Ok(Tls::Files { cert: files.cert, key: files.key })
            }
        }
        d.deserialize_any(Visitor)
    }
}

impl Serialize for Tls {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Off => s.serialize_str("off"),
            Self::Auto => s.serialize_str("auto"),
            Self::Files { cert, key } => TlsFiles { cert: cert.clone(), key: key.clone() }.serialize(s),
        }
    }
}

impl JsonSchema for Tls {
    fn schema_name() -> Cow<'static, str> {
        "Tls".into()
    }
    fn json_schema(g: &mut SchemaGenerator) -> Schema {
        let files = g.subschema_for::<TlsFiles>();
        json_schema!({ "anyOf": [{ "type": "string", "enum": ["off", "auto"] }, files] })
    }
}

#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct TlsFiles {
    /// The certificate chain, PEM.
    cert: PathBuf,
    /// Its private key, PEM.
    key: PathBuf,
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl Serialize for Url {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<const MIN_MS: u64> Serialize for Time<MIN_MS> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<const MAX: u32> Serialize for Count<MAX> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(s)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<T: for<'a> Deserialize<'a>>(value: &str) -> Result<T, String> {
        T::deserialize(toml::de::ValueDeserializer::parse(value).unwrap()).map_err(|e| e.message().to_owned())
    }

    #[test]
    fn sizes_and_times_read_and_show_alike() {
        for (text, bytes) in [("1", 1), ("\"8 MiB\"", 8 << 20), ("\"32KiB\"", 32 << 10), ("\"5 B\"", 5)] {
            assert_eq!(read::<Size>(text), Ok(Size(bytes)), "{text}");
        }
        for bad in
            ["0", "-1", "\"8 MB\"", "\"MiB\"", "\"\"", "\"5 GiB\"", "\"99999999999999999999 B\"", "true"]
        {
            assert!(read::<Size>(bad).unwrap_err().contains("expected a size"), "{bad}");
        }
        for text in ["250ms", "30s", "5m", "1h", "30d"] {
            assert_eq!(Time::<1>::parse(text).map(|t| t.to_string()).as_deref(), Some(text));
        }
        for bad in ["", "30", "s", "30 s", "0s", "1w", "-1s", "99999999d", "1.5s"] {
            assert_eq!(Time::<1>::parse(bad), None, "{bad}");
        }
        assert_eq!(Time::<0>::parse("0ms"), Some(Time(Duration::ZERO)));
        assert_eq!(Size(8 << 20).to_string(), "8 MiB");
    }

    #[test]
    fn urls_are_whole_and_carry_no_password() {
        for good in ["https://a.example/mcp", "http://127.0.0.1:1/", "https://[::1]:8/x?y=z"] {
            assert!(Url::parse(good).is_some(), "{good}");
        }
        for bad in ["", "/mcp", "ftp://a", "https://", "https://u:p@a/", "https://a/#x", "a.example"] {
            assert!(Url::parse(bad).is_none(), "{bad}");
        }
        assert!(!read::<Url>("\"https://me:hunter2@a/\"").unwrap_err().contains("hunter2"));
        assert!(Url::parse("http://[::1]:8/").is_some_and(|u| u.is_protected()));
        assert!(Url::parse("http://intranet/").is_some_and(|u| !u.is_protected()));
    }

    #[test]
    fn texts_may_stand_elsewhere() {
        assert_eq!(Text::parse("env:A_1"), Ok(Text::Env("A_1".into())));
        assert_eq!(Text::parse("file:a b"), Ok(Text::File("a b".into())));
        assert_eq!(Text::parse("text:env:A"), Ok(Text::Plain("env:A".into())));
        assert!(
            Text::parse("env:").is_err() && Text::parse("file:").is_err() && Text::parse("env:A-B").is_err()
        );
        assert!(!format!("{:?}", Text::Plain("hunter2".into())).contains("hunter2"));
    }
}
