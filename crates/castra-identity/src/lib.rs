//! Credentials to who: tokens, certificates, JWTs.
