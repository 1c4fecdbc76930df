//! Signing and checking, and that nothing else than our own tokens in their time passes.

use super::*;

const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

fn issuer() -> TokenIssuer {
    let key = rcgen::KeyPair::generate().unwrap().serialize_pem();
    TokenIssuer::new(ISSUER, &[ISSUER.to_owned()], &key).unwrap()
}

fn claims(now: i64) -> Claims {
    Claims {
        aud: vec![ISSUER.to_owned()],
        exp: now + 600,
        iat: now,
        iss: ISSUER.to_owned(),
        jti: "j".to_owned(),
        kubernetes: KubernetesClaims {
            namespace: "default".to_owned(),
            serviceaccount: Reference { name: "builder".to_owned(), uid: "u".to_owned() },
            pod: None,
            secret: None,
            node: None,
        },
        nbf: now,
        sub: "system:serviceaccount:default:builder".to_owned(),
    }
}

fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}

#[test]
fn a_token_of_ours_passes_for_its_audiences_only() {
    let issuer = issuer();
    let mut claims = claims(now());
    claims.aud.push("vault".to_owned());
    let token = issuer.sign(&claims).unwrap();
    assert!(issuer.is_ours(&token));
    assert_eq!(issuer.verify(&token, &["vault".to_owned()]).unwrap(), (claims, vec!["vault".to_owned()]));
    assert!(matches!(issuer.verify(&token, &["other".to_owned()]), Err(TokenError::Audience { .. })));
}

#[test]
fn time_key_issuer_subject_and_algorithm_must_be_right() {
    let ours = issuer();
    let audiences = [ISSUER.to_owned()];
    let refused = |token: &str| matches!(ours.verify(token, &audiences), Err(TokenError::Invalid(_)));

    let past = claims(now() - 700);
    assert!(refused(&ours.sign(&past).unwrap()), "expired");
    let future = claims(now() + 300);
    assert!(refused(&ours.sign(&future).unwrap()), "not yet");
    assert!(refused(&issuer().sign(&claims(now())).unwrap()), "another key");
    let mut other_issuer = claims(now());
    other_issuer.iss = "https://elsewhere".to_owned();
    let token = ours.sign(&other_issuer).unwrap();
    assert!(refused(&token));
    assert!(!ours.is_ours(&token));
    let mut other_subject = claims(now());
    other_subject.sub = "system:serviceaccount:kube-system:admin".to_owned();
    assert!(refused(&ours.sign(&other_subject).unwrap()), "subject and account differ");

    // The two classic attacks: no signature, and the public key used as a shared secret.
    let payload = ours.sign(&claims(now())).unwrap().split('.').nth(1).unwrap().to_owned();
    let none = URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#);
    assert!(refused(&format!("{none}.{payload}.")));
    let header = Header::new(Algorithm::HS256);
    let shared = EncodingKey::from_secret(ours.jwks().as_bytes());
    assert!(refused(&jsonwebtoken::encode(&header, &claims(now()), &shared).unwrap()));
    assert!(refused("not.a.token"));
}

#[test]
fn the_published_key_checks_our_tokens() {
    let issuer = issuer();
    let token = issuer.sign(&claims(now())).unwrap();
    let keys: jsonwebtoken::jwk::JwkSet = serde_json::from_str(issuer.jwks()).unwrap();
    let key_id = jsonwebtoken::decode_header(&token).unwrap().kid.unwrap();
    let key = DecodingKey::from_jwk(keys.find(&key_id).unwrap()).unwrap();
    let mut validation = Validation::new(Algorithm::ES256);
    validation.set_audience(&[ISSUER]);
    assert!(jsonwebtoken::decode::<Claims>(&token, &key, &validation).is_ok());
}

#[test]
fn another_kind_of_key_is_refused() {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap().serialize_pem();
    assert!(TokenIssuer::new(ISSUER, &[], &key).is_err());
}
