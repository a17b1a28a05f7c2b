//! The built-in list: credentials whose form gives them away.
//!
//! Each is told by a literal beginning that its issuer chose to be found, or by the name that it is
//! assigned to. A match takes all characters that could belong to the token, so that no tail of one
//! stays behind. Bounds on lengths are the shortest that the issuer has given out, not the exact ones:
//! issuers lengthen their tokens.

use castra_core::Severity::{self, Critical, High, Medium};

/// One entry of the list.
pub(crate) struct Secret {
    /// The finding is `secret.NAME`, the mask `[redacted:NAME]`.
    pub(crate) name: &'static str,
    /// Bytes, not Unicode: every class is of ASCII characters.
    pub(crate) regex: &'static str,
    pub(crate) severity: Severity,
    /// Percent: how few other things look like it.
    pub(crate) confidence: u8,
}

const fn secret(name: &'static str, severity: Severity, confidence: u8, regex: &'static str) -> Secret {
    Secret { name, regex, severity, confidence }
}

/// Of two that begin at one place the earlier in this list counts.
pub(crate) const SECRETS: &[Secret] = &[
    secret("aws-access-key", Critical, 98, r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"),
    secret(
        "aws-secret-key",
        Critical,
        95,
        r#"(?:aws_secret_access_key|AWS_SECRET_ACCESS_KEY|aws_secret_key|AWS_SECRET_KEY|[Ss]ecretAccessKey|secret_access_key)["']{0,2}\s{0,4}(?:=>|:=|=|:)\s{0,4}["']?[A-Za-z0-9/+]{40,}"#,
    ),
    secret("github-token", Critical, 98, r"\b(?:gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{36,})"),
    secret("gitlab-token", Critical, 95, r"\b(?:glpat|gldt|glrt|glptt|glcbt)-[A-Za-z0-9_.-]{20,}"),
    secret(
        "slack-token",
        Critical,
        95,
        r"\b(?:xox[abeoprs](?:\.xox[bp])?-[A-Za-z0-9-]{10,}|xapp-[0-9]-[A-Za-z0-9-]{20,})",
    ),
    secret(
        "slack-webhook",
        High,
        95,
        r"https://hooks\.slack(?:-gov)?\.com/(?:services|workflows|triggers)/[A-Za-z0-9/+_-]{20,}",
    ),
    secret("stripe-key", Critical, 98, r"\b(?:sk|rk)_live_[A-Za-z0-9]{16,}"),
    secret("stripe-webhook-secret", High, 90, r"\bwhsec_[A-Za-z0-9+/=]{24,}"),
    secret("anthropic-key", Critical, 98, r"\bsk-ant-[A-Za-z0-9]{2,16}-[A-Za-z0-9_-]{20,}"),
    secret(
        "openai-key",
        Critical,
        95,
        r"\bsk-(?:(?:proj|svcacct|admin|None)-[A-Za-z0-9_-]{20,}|[A-Za-z0-9]{32,})",
    ),
    secret("openrouter-key", Critical, 95, r"\bsk-or-v1-[0-9a-f]{32,}"),
    secret("google-api-key", High, 95, r"\bAIza[A-Za-z0-9_-]{34}(?:[A-Za-z0-9_]\b|-)"),
    secret("google-oauth", Critical, 95, r"\b(?:GOCSPX-[A-Za-z0-9_-]{24,}|ya29\.[A-Za-z0-9_-]{20,})"),
    secret("azure-key", Critical, 95, r"(?:AccountKey|SharedAccessKey)=[A-Za-z0-9+/]{40,}={0,2}"),
    secret("azure-sas", High, 85, r"[?&]sig=[A-Za-z0-9+/%]{40,}(?:%3[Dd]|=)"),
    secret("npm-token", Critical, 98, r"\bnpm_[A-Za-z0-9]{36,}"),
    secret("pypi-token", Critical, 98, r"\bpypi-Ag[A-Za-z0-9_-]{40,}"),
    secret("huggingface-token", High, 95, r"\bhf_[A-Za-z0-9]{30,}"),
    secret("twilio-key", High, 85, r"\bSK[0-9a-f]{32}\b"),
    secret("sendgrid-key", Critical, 98, r"\bSG\.[A-Za-z0-9_-]{16,32}\.[A-Za-z0-9_-]{32,}"),
    secret("jwt", High, 95, r"\beyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{16,}"),
    secret("private-key", Critical, 99, PRIVATE_KEY),
    secret("age-key", Critical, 99, r"\bAGE-SECRET-KEY-1[0-9A-Z]{40,}"),
    secret("castra-token", Critical, 99, r"\bcastra_(?:agent|operator|enroll)_[0-9A-Za-z]{40,}"),
    secret("url-password", High, 85, URL_PASSWORD),
    secret("password", Medium, 70, ASSIGNED),
];

/// RFC 7468 and its predecessors, OpenPGP's too (RFC 9580, section 6). The body takes what PEM files
/// have, escaped line ends of a file inside a string, and headers. A key without its last line is a
/// key.
const PRIVATE_KEY: &str = concat!(
    r"-----BEGIN (?:[A-Z0-9]{1,12} ){0,3}PRIVATE KEY(?: BLOCK)?-----",
    r"(?:[A-Za-z0-9+/=:,.()\s]|\\[nrt]|-[A-Za-z0-9 ])*",
    r"(?:-----END (?:[A-Z0-9]{1,12} ){0,3}PRIVATE KEY(?: BLOCK)?-----)?",
);

/// `scheme://user:password@` (RFC 3986, section 3.2.1). The first character of the password tells a
/// real one from a place holder such as `${PASSWORD}` or `<password>`.
const URL_PASSWORD: &str = concat!(
    r"\b(?:https?|s?ftp|postgres(?:ql)?|mysql|mariadb|sqlserver|mongodb(?:\+srv)?|rediss?|amqps?|mqtts?|ldaps?|smtps?)://",
    r"[A-Za-z0-9._~%!&'()*+,;=-]{0,64}:[A-Za-z0-9._~!&'()+,;=-][A-Za-z0-9._~%!$&'()*+,;=:#?^|{}<>-]{2,255}@",
);

/// A quoted value, or one of an environment file, under a name that says what it is. It must hold a
/// digit, which place holders and names of variables seldom do.
const ASSIGNED: &str = concat!(
    r#"(?:(?:password|passwd|api_key|apiKey|client_secret|secret_key)["']?\s{0,4}(?:=>|:=|=|:)\s{0,4}["']"#,
    r#"(?:[A-Za-z+/_.~!@#$%^&*-]{0,4}[0-9][A-Za-z0-9+/_.~!@#$%^&*=-]{7,}|[A-Za-z+/_.~!@#$%^&*-]{5,64}[0-9][A-Za-z0-9+/_.~!@#$%^&*=-]{2,})["']"#,
    r#"|(?:PASSWORD|API_KEY|CLIENT_SECRET|SECRET_KEY)="#,
    r#"(?:[A-Za-z+/_.~!@#$%^&*-]{0,4}[0-9][A-Za-z0-9+/_.~!@#$%^&*=-]{7,}|[A-Za-z+/_.~!@#$%^&*-]{5,64}[0-9][A-Za-z0-9+/_.~!@#$%^&*=-]{2,}))"#,
);
