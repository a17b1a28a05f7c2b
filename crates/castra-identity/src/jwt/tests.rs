use aws_lc_rs::{
    rand::SystemRandom,
    rsa::{KeySize, PublicKeyComponents},
    signature::{self, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RsaKeyPair},
};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const ISSUER: &str = "https://idp.example";
const RESOURCE: &str = "https://gate.example/mcp/files";
const NOW: Timestamp = Timestamp(1_795_557_868_000_000);

enum Signer {
    Ec(EcdsaKeyPair, usize),
    Ed(Ed25519KeyPair),
    Rsa(RsaKeyPair),
}

impl Signer {
    fn p256() -> Self {
        Self::Ec(EcdsaKeyPair::generate(&signature::ECDSA_P256_SHA256_FIXED_SIGNING).expect("key"), 32)
    }

    fn p384() -> Self {
        Self::Ec(EcdsaKeyPair::generate(&signature::ECDSA_P384_SHA384_FIXED_SIGNING).expect("key"), 48)
    }

    fn ed25519() -> Self {
        Self::Ed(Ed25519KeyPair::generate().expect("key"))
    }

    fn rsa() -> Self {
        Self::Rsa(RsaKeyPair::generate(KeySize::Rsa2048).expect("key"))
    }

    fn jwk(&self, kid: &str) -> Value {
        let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        match self {
            Self::Ec(key, size) => {
                let point = key.public_key().as_ref();
                let crv = if *size == 32 { "P-256" } else { "P-384" };
                json!({"kty": "EC", "crv": crv, "kid": kid, "x": text(&point[1..=*size]), "y": text(&point[1 + size..])})
            }
            Self::Ed(key) => {
                json!({"kty": "OKP", "crv": "Ed25519", "kid": kid, "x": text(key.public_key().as_ref())})
            }
            Self::Rsa(key) => {
                let (n, e) = rsa_components(key.public_key().as_ref());
                json!({"kty": "RSA", "kid": kid, "n": text(&n), "e": text(&e)})
            }
        }
    }

    fn sign(&self, algorithm: &str, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match self {
            Self::Ec(key, _) => key.sign(&random, message).expect("signed").as_ref().to_vec(),
            Self::Ed(key) => key.sign(message).as_ref().to_vec(),
            Self::Rsa(key) => {
                let encoding = match algorithm {
                    "RS256" => &signature::RSA_PKCS1_SHA256,
                    "RS512" => &signature::RSA_PKCS1_SHA512,
                    _ => &signature::RSA_PSS_SHA256,
                };
                let mut out = vec![0; key.public_modulus_len()];
                key.sign(encoding, &random, message, &mut out).expect("signed");
                out
            }
        }
    }

    fn token(&self, header: Value, claims: Value) -> String {
        let text = |v: &Value| URL_SAFE_NO_PAD.encode(v.to_string());
        let signed = format!("{}.{}", text(&header), text(&claims));
        let algorithm = header["alg"].as_str().unwrap_or("");
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(self.sign(algorithm, signed.as_bytes())))
    }
}

/// RSAPublicKey of RFC 8017 appendix A.1.1: a sequence of two integers.
fn rsa_components(der: &[u8]) -> (Vec<u8>, Vec<u8>) {
    fn element(der: &[u8]) -> (&[u8], &[u8]) {
        let (length, at) = match der[1] {
            0x81 => (usize::from(der[2]), 3),
            0x82 => (usize::from(der[2]) << 8 | usize::from(der[3]), 4),
            short => (usize::from(short), 2),
        };
        (&der[at..at + length], &der[at + length..])
    }
    let (sequence, _) = element(der);
    let (n, rest) = element(sequence);
    let (e, _) = element(rest);
    let components = PublicKeyComponents { n: without_zeros(n), e: without_zeros(e) };
    (components.n, components.e)
}

fn without_zeros(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().copied().skip_while(|b| *b == 0).collect()
}

fn jwks(keys: &[Value]) -> Jwks {
    Jwks::parse(json!({ "keys": keys }).to_string().as_bytes()).expect("usable")
}

fn claims() -> Value {
    json!({"iss": ISSUER, "sub": "build-bot", "aud": RESOURCE, "exp": NOW.secs() + 300, "iat": NOW.secs()})
}

fn with(mut base: Value, key: &str, value: Value) -> Value {
    if value.is_null() {
        base.as_object_mut().expect("object").remove(key);
    } else {
        base[key] = value;
    }
    base
}

#[test]
fn every_algorithm_verifies_and_no_other_passes() {
    let rsa = Signer::rsa();
    for (signer, good) in [
        (&Signer::p256(), &["ES256"][..]),
        (&Signer::p384(), &["ES384"]),
        (&Signer::ed25519(), &["EdDSA", "Ed25519"]),
        (&rsa, &["RS256", "RS512", "PS256"]),
    ] {
        let config = IssuerConfig {
            algorithms: vec![
                Algorithm::Rs256,
                Algorithm::Rs512,
                Algorithm::Ps256,
                Algorithm::Es256,
                Algorithm::Es384,
                Algorithm::EdDsa,
            ],
            ..IssuerConfig::new(ISSUER)
        };
        let issuer = Issuer::new(config, jwks(&[signer.jwk("k")]));
        for algorithm in good {
            let token = signer.token(json!({"alg": algorithm, "kid": "k", "typ": "at+jwt"}), claims());
            let verified = verify(&token, &issuer, RESOURCE, NOW).expect(algorithm);
            assert_eq!(verified.agent.as_str(), "build-bot");
            assert_eq!(verified.expires, NOW.plus_secs(360));
        }
        for other in ["RS256", "PS256", "ES256", "ES384", "EdDSA"].iter().filter(|a| !good.contains(a)) {
            let token = signer.token(json!({"alg": other, "kid": "k"}), claims());
            let refused = verify(&token, &issuer, RESOURCE, NOW);
            assert!(matches!(refused, Err(JwtError::UnknownKey { .. })), "{other}: {refused:?}");
        }
        for never in ["none", "HS256", "HS512", "ES512", "es256", ""] {
            let token = signer.token(json!({"alg": never, "kid": "k"}), claims());
            let refused = verify(&token, &issuer, RESOURCE, NOW);
            assert!(matches!(refused, Err(JwtError::Algorithm { .. })), "{never}: {refused:?}");
        }
    }
    // The classic confusion: RS256 signed under a key that is pinned to PS256.
    let pinned = with(rsa.jwk("k"), "alg", json!("PS256"));
    let issuer = Issuer::new(IssuerConfig::new(ISSUER), jwks(&[pinned]));
    let token = rsa.token(json!({"alg": "RS256", "kid": "k"}), claims());
    assert!(matches!(verify(&token, &issuer, RESOURCE, NOW), Err(JwtError::UnknownKey { .. })));
}

#[test]
fn wrong_claims_are_refused_each_with_its_reason() {
    let signer = Signer::p256();
    let config = IssuerConfig {
        audiences: vec!["castra".into()],
        agents: [("auth0|7".to_owned(), AgentName::new("mapped").expect("name"))].into(),
        groups: [("CN=Ops".to_owned(), GroupName::new("ops").expect("group"))].into(),
        scopes: [("mcp:tools".to_owned(), vec!["mcp:call".to_owned(), "mcp:read".to_owned()])].into(),
        ..IssuerConfig::new(ISSUER)
    };
    let issuer = Issuer::new(config, jwks(&[signer.jwk("k")]));
    let ask = |claims: Value| verify(&signer.token(json!({"alg": "ES256"}), claims), &issuer, RESOURCE, NOW);
    let at = |secs: i64| json!(NOW.secs() + secs);
    type Expected = fn(&JwtError) -> bool;
    let cases: Vec<(&str, Value, Expected)> = vec![
        ("iss", json!("https://other.example"), |e| matches!(e, JwtError::Issuer { .. })),
        ("iss", json!("https://idp.example/"), |e| matches!(e, JwtError::Issuer { .. })),
        ("iss", Value::Null, |e| matches!(e, JwtError::Claim { .. })),
        ("aud", json!("https://gate.example/mcp/git"), |e| matches!(e, JwtError::Audience { .. })),
        ("aud", json!(["x", "y"]), |e| matches!(e, JwtError::Audience { .. })),
        ("aud", json!([]), |e| matches!(e, JwtError::Audience { .. })),
        ("aud", json!(7), |e| matches!(e, JwtError::Claim { .. })),
        ("aud", json!([RESOURCE, 7]), |e| matches!(e, JwtError::Claim { .. })),
        ("aud", Value::Null, |e| matches!(e, JwtError::Claim { .. })),
        ("exp", at(-60), |e| matches!(e, JwtError::Expired { .. })),
        ("exp", Value::Null, |e| matches!(e, JwtError::Claim { .. })),
        ("exp", json!("never"), |e| matches!(e, JwtError::Claim { .. })),
        ("exp", json!(-1.5), |e| matches!(e, JwtError::Claim { .. })),
        ("nbf", at(61), |e| matches!(e, JwtError::NotYet { .. })),
        ("iat", at(61), |e| matches!(e, JwtError::IssuedInFuture { .. })),
        ("sub", json!("Not A Name"), |e| matches!(e, JwtError::AgentName { .. })),
        ("sub", json!(""), |e| matches!(e, JwtError::Claim { .. })),
        ("sub", Value::Null, |e| matches!(e, JwtError::Claim { .. })),
        ("scope", json!(""), |e| matches!(e, JwtError::NoScope { .. })),
        ("scope", json!([]), |e| matches!(e, JwtError::NoScope { .. })),
        ("scope", json!({}), |e| matches!(e, JwtError::Claim { .. })),
        ("groups", json!(vec!["g"; 300]), |e| matches!(e, JwtError::TooMany { .. })),
        ("groups", json!(1), |e| matches!(e, JwtError::Claim { .. })),
    ];
    for (name, value, expected) in cases {
        let refused = ask(with(claims(), name, value.clone())).expect_err(name);
        assert!(expected(&refused), "{name} = {value}: {refused:?}");
    }
    for (name, value) in [
        ("aud", json!("castra")),
        ("aud", json!(["x", "https://gate.example"])),
        ("exp", at(-59)),
        ("exp", json!(NOW.secs() as f64 + 0.5)),
        ("nbf", at(60)),
        ("iat", at(60)),
    ] {
        assert!(ask(with(claims(), name, value.clone())).is_ok(), "{name} = {value}");
    }
    let rich = with(claims(), "groups", json!(["dev", "CN=Ops", "CN=Other, OU=x"]));
    let rich = with(with(rich, "scope", json!("mcp:tools openid")), "sub", json!("auth0|7"));
    let verified = ask(with(rich, "jti", json!("id-1"))).expect("good");
    assert_eq!(verified.agent.as_str(), "mapped");
    assert_eq!(verified.groups.iter().map(GroupName::as_str).collect::<Vec<_>>(), ["dev", "ops"]);
    assert_eq!(verified.scopes.iter().map(|s| &**s).collect::<Vec<_>>(), ["mcp:call", "mcp:read", "openid"]);
    assert_eq!(&*verified.credential, "jwt:https://idp.example jti:id-1");
    let nested = IssuerConfig { groups_claim: "realm_access.roles".into(), ..IssuerConfig::new(ISSUER) };
    let nested = Issuer::new(nested, jwks(&[signer.jwk("k")]));
    let token =
        signer.token(json!({"alg": "ES256"}), with(claims(), "realm_access", json!({"roles": ["r"]})));
    assert_eq!(verify(&token, &nested, RESOURCE, NOW).map(|v| v.groups.len()), Ok(1));
}

#[test]
fn headers_and_keys_are_chosen_strictly() {
    let (signer, other) = (Signer::p256(), Signer::p256());
    let one = Issuer::new(IssuerConfig::new(ISSUER), jwks(&[signer.jwk("a")]));
    let two = one.with_keys(jwks(&[signer.jwk("a"), other.jwk("b")]));
    let ask = |issuer: &Issuer, header: Value| verify(&signer.token(header, claims()), issuer, RESOURCE, NOW);
    assert!(ask(&one, json!({"alg": "ES256"})).is_ok());
    assert!(ask(&two, json!({"alg": "ES256", "kid": "a"})).is_ok());
    assert_eq!(ask(&two, json!({"alg": "ES256", "kid": "b"})), Err(JwtError::Signature));
    let unknown = ask(&two, json!({"alg": "ES256", "kid": "c"})).expect_err("unknown key");
    assert!(unknown.wants_fresh_keys());
    assert!(ask(&two, json!({"alg": "ES256"})).expect_err("ambiguous").wants_fresh_keys());
    assert_eq!(
        ask(&one, json!({"alg": "ES256", "crit": ["b64"], "b64": false})),
        Err(JwtError::CriticalExtension)
    );
    // A key that the token itself brings is not looked at.
    assert_eq!(
        verify(&other.token(json!({"alg": "ES256", "jwk": other.jwk("a")}), claims()), &one, RESOURCE, NOW),
        Err(JwtError::Signature)
    );
    for (typ, at_jwt_only, good) in [
        ("at+jwt", true, true),
        ("application/at+JWT", true, true),
        ("JWT", true, false),
        ("JWT", false, true),
        ("logout+jwt", false, false),
        ("dpop+jwt", false, false),
        ("applicationXat+jwt", false, false),
    ] {
        let config = IssuerConfig { at_jwt_only, ..IssuerConfig::new(ISSUER) };
        let issuer = Issuer::new(config, jwks(&[signer.jwk("a")]));
        assert_eq!(ask(&issuer, json!({"alg": "ES256", "typ": typ})).is_ok(), good, "{typ} {at_jwt_only}");
    }
}

#[test]
fn a_changed_token_does_not_verify() {
    let signer = Signer::ed25519();
    let issuer = Issuer::new(IssuerConfig::new(ISSUER), jwks(&[signer.jwk("k")]));
    let token = signer.token(json!({"alg": "EdDSA", "kid": "k"}), claims());
    assert!(verify(&token, &issuer, RESOURCE, NOW).is_ok());
    for at in 0..token.len() {
        let mut bytes = token.clone().into_bytes();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        let changed = String::from_utf8(bytes).expect("ASCII");
        assert!(verify(&changed, &issuer, RESOURCE, NOW).is_err(), "at {at}");
    }
    let twice = r#"{"iss":"https://idp.example","sub":"a","sub":"b"}"#;
    assert!(matches!(Claims::parse(twice.as_bytes()), Err(JwtError::Unreadable { .. })));
}

#[test]
fn key_sets_keep_only_what_can_be_used() {
    let good = Signer::p256().jwk("k");
    let count =
        |keys: Vec<Value>| Jwks::parse(json!({ "keys": keys }).to_string().as_bytes()).map(|set| set.len());
    assert_eq!(count(vec![good.clone(), json!({"kty": "oct", "k": "AA"})]), Ok(1));
    for unfit in [
        with(good.clone(), "use", json!("enc")),
        with(good.clone(), "key_ops", json!(["sign"])),
        with(good.clone(), "alg", json!("HS256")),
        with(good.clone(), "d", json!("AA")),
        with(good.clone(), "y", json!("AA")),
        with(good.clone(), "x", good["y"].clone()),
        with(good.clone(), "crv", json!("P-521")),
        json!({"kty": "RSA", "n": URL_SAFE_NO_PAD.encode([255; 128]), "e": "AQAB"}),
        json!({"kty": "RSA", "n": URL_SAFE_NO_PAD.encode([255; 256]), "e": "Ag"}),
        json!({"kty": "OKP", "crv": "X25519", "x": URL_SAFE_NO_PAD.encode([1; 32])}),
    ] {
        assert_eq!(count(vec![unfit.clone()]), Err(JwksError::NoneUsable { found: 1 }), "{unfit}");
    }
    assert!(matches!(count(vec![good; 101]), Err(JwksError::TooMany { .. })));
    assert!(matches!(Jwks::parse(b"[]"), Err(JwksError::Unreadable { .. })));
}

#[test]
fn metadata_is_looked_for_where_the_standards_say() {
    assert_eq!(
        discovery_urls("https://idp.example/tenant"),
        [
            "https://idp.example/.well-known/oauth-authorization-server/tenant",
            "https://idp.example/tenant/.well-known/openid-configuration"
        ]
    );
    assert_eq!(
        discovery_urls("https://idp.example/"),
        [
            "https://idp.example/.well-known/oauth-authorization-server",
            "https://idp.example/.well-known/openid-configuration"
        ]
    );
}

#[test]
fn metadata_must_be_of_the_issuer_that_was_asked() {
    let ask = |issuer: &str, keys: &str| {
        let document = json!({"issuer": issuer, "jwks_uri": keys, "token_endpoint": "x"}).to_string();
        jwks_url(document.as_bytes(), ISSUER)
    };
    assert_eq!(ask(ISSUER, "https://idp.example/jwks"), Ok("https://idp.example/jwks".into()));
    assert!(matches!(ask("https://evil.example", "https://x"), Err(MetadataError::OtherIssuer { .. })));
    assert!(matches!(ask(ISSUER, "http://idp.example/jwks"), Err(MetadataError::InsecureKeys { .. })));
    assert!(matches!(jwks_url(b"{}", ISSUER), Err(MetadataError::Unreadable { .. })));
}

proptest! {
    #[test]
    fn any_text_is_judged_without_panic(text in any::<String>(), parts in proptest::collection::vec(any::<Vec<u8>>(), 3)) {
        let key = r#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;
        let issuer = Issuer::new(IssuerConfig::new(ISSUER), Jwks::parse(key.as_bytes()).expect("usable"));
        let shaped = parts.iter().map(|p| URL_SAFE_NO_PAD.encode(p)).collect::<Vec<_>>().join(".");
        for token in [&text, &shaped] {
            prop_assert!(verify(token, &issuer, RESOURCE, NOW).is_err());
            let _ = (issuer_of(token), looks_like_jwt(token));
        }
        let _ = Jwks::parse(text.as_bytes());
        let _ = Claims::parse(text.as_bytes());
    }
}

/// SubjectPublicKeyInfo of the signer's key, in PEM.
fn pem(signer: &Signer) -> Vec<u8> {
    use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
    let der: PublicKeyX509Der<'_> = match signer {
        Signer::Ec(key, _) => key.public_key().as_der().expect("DER"),
        Signer::Ed(key) => key.public_key().as_der().expect("DER"),
        Signer::Rsa(key) => key.public_key().as_der().expect("DER"),
    };
    let text = base64::engine::general_purpose::STANDARD.encode(der.as_ref());
    format!("-----BEGIN PUBLIC KEY-----\n{text}\n-----END PUBLIC KEY-----\n").into_bytes()
}

#[test]
fn keys_in_pem_verify_under_any_id() {
    for (signer, algorithm) in [
        (Signer::p256(), "ES256"),
        (Signer::p384(), "ES384"),
        (Signer::ed25519(), "EdDSA"),
        (Signer::rsa(), "PS256"),
    ] {
        let keys = Jwks::from_pem(&pem(&signer)).expect("a key");
        let signature = signer.sign(algorithm, b"said");
        assert!(keys.verifies(Some("any"), algorithm, b"said", &signature), "{algorithm}");
        assert!(!keys.verifies(None, algorithm, b"other", &signature), "{algorithm}");
        assert!(!keys.verifies(None, "HS256", b"said", &signature), "{algorithm}");
        assert!(!keys.verifies(None, "none", b"said", &signature), "{algorithm}");
        let both = keys.with(&Jwks::from_pem(&pem(&Signer::ed25519())).expect("a key"));
        assert!(both.verifies(None, algorithm, b"said", &signature) && both.len() == 2);
    }
    assert!(matches!(Jwks::from_pem(b"nothing"), Err(JwksError::NoneUsable { found: 0 })));
}
