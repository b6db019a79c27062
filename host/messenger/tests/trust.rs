//! Who may speak to us: signatures, handshakes, signed requests; and how we prove ourselves.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use frontdesk_messenger::handshake::{HandshakeError, verify_handshake, verify_handshake_query};
use frontdesk_messenger::proof::{appsecret_proof, appsecret_proof_at};
use frontdesk_messenger::signature::{self, SignatureError};
use frontdesk_messenger::signed_request::{SignedRequestError, parse_signed_request};
use hmac::{Hmac, KeyInit, Mac};
use secrecy::SecretString;
use serde_json::json;
use sha2::Sha256;

fn secret(text: &str) -> SecretString {
    SecretString::from(text.to_owned())
}

#[test]
fn the_signature_is_the_rfcs_hmac() {
    // RFC 4231, test case 2.
    let header = "sha256=5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
    let body = b"what do ya want for nothing?";
    assert_eq!(signature::sign(&secret("Jefe"), body), header);
    assert_eq!(signature::verify(Some(header), &[secret("Jefe")], body), Ok(0));
}

#[test]
fn a_signature_is_strict_in_all_but_case_of_digits_and_outer_blanks() {
    let body = br#"{"text":"\u00e4\/"}"#;
    let secrets = [secret("old"), secret("new")];
    let good = signature::sign(&secrets[1], body);
    let digits = good.strip_prefix("sha256=").unwrap().to_owned();
    let long = format!("{good}00");
    let cases = [
        (Some(good.clone()), Ok(1)),
        (Some(format!("  {good}\t")), Ok(1)),
        (Some(format!("sha256={}", digits.to_uppercase())), Ok(1)),
        (None, Err(SignatureError::Missing)),
        (Some(String::new()), Err(SignatureError::Malformed)),
        (Some("sha256=".to_owned()), Err(SignatureError::Malformed)),
        (Some(digits.clone()), Err(SignatureError::Malformed)),
        (Some(format!("SHA256={digits}")), Err(SignatureError::Malformed)),
        (Some(format!("sha1={digits}")), Err(SignatureError::Malformed)),
        (Some(format!("sha256= {digits}")), Err(SignatureError::Malformed)),
        (Some(good[..good.len() - 2].to_owned()), Err(SignatureError::Malformed)),
        (Some(long), Err(SignatureError::Malformed)),
        (Some(format!("{good},{good}")), Err(SignatureError::Malformed)),
        (Some(good.replace(&digits[..2], "zz")), Err(SignatureError::Malformed)),
        (Some(signature::sign(&secret("other"), body)), Err(SignatureError::Mismatch)),
        (Some(signature::sign(&secrets[1], "{\"text\":\"ä/\"}".as_bytes())), Err(SignatureError::Mismatch)),
    ];
    for (header, expected) in cases {
        assert_eq!(signature::verify(header.as_deref(), &secrets, body), expected, "{header:?}");
    }
}

#[test]
fn an_empty_secret_never_verifies() {
    let body = b"x";
    let forged = signature::sign(&secret(""), body);
    assert_eq!(signature::verify(Some(&forged), &[secret("")], body), Err(SignatureError::NoSecret));
    assert_eq!(signature::verify(Some(&forged), &[], body), Err(SignatureError::NoSecret));
    assert_eq!(signature::verify(Some(&forged), &[secret(""), secret("s")], body), Err(SignatureError::Mismatch));
}

#[test]
fn headers_sha1_alone_and_doubled_headers_are_refused() {
    let secrets = [secret("s")];
    let good = signature::sign(&secrets[0], b"x");
    let mut headers = http::HeaderMap::new();
    assert_eq!(signature::verify_headers(&headers, &secrets, b"x"), Err(SignatureError::Missing));
    headers.insert("x-hub-signature", http::HeaderValue::from_static("sha1=0000000000000000000000000000000000000000"));
    assert_eq!(signature::verify_headers(&headers, &secrets, b"x"), Err(SignatureError::LegacyOnly));
    headers.insert("x-hub-signature-256", good.parse().unwrap());
    assert_eq!(signature::verify_headers(&headers, &secrets, b"x"), Ok(0));
    headers.append("x-hub-signature-256", good.parse().unwrap());
    assert_eq!(signature::verify_headers(&headers, &secrets, b"x"), Err(SignatureError::Malformed));
}

#[test]
fn a_handshake_echoes_digits_to_the_right_token_only() {
    let expected = [secret("right"), secret("next")];
    let long = "1".repeat(65);
    type Query<'a> = [Option<&'a str>; 3];
    let cases: Vec<(Query<'_>, Result<&str, u16>)> = vec![
        ([Some("subscribe"), Some("right"), Some("1158201444")], Ok("1158201444")),
        ([Some("subscribe"), Some("next"), Some("0")], Ok("0")),
        ([Some("subscribe"), Some("wrong"), Some("1")], Err(403)),
        ([Some("subscribe"), Some(""), Some("1")], Err(403)),
        ([Some("subscribe"), Some("right "), Some("1")], Err(403)),
        ([Some("Subscribe"), Some("right"), Some("1")], Err(403)),
        ([Some("unsubscribe"), Some("right"), Some("1")], Err(403)),
        ([None, Some("right"), Some("1")], Err(403)),
        ([Some("subscribe"), None, Some("1")], Err(403)),
        ([None, None, None], Err(403)),
        // Only who has the token learns that the challenge is none.
        ([Some("subscribe"), Some("wrong"), None], Err(403)),
        ([Some("subscribe"), Some("wrong"), Some("<script>")], Err(403)),
        ([Some("subscribe"), Some("right"), None], Err(400)),
        ([Some("subscribe"), Some("right"), Some("")], Err(400)),
        ([Some("subscribe"), Some("right"), Some("<script>")], Err(400)),
        ([Some("subscribe"), Some("right"), Some("12 ")], Err(400)),
        ([Some("subscribe"), Some("right"), Some("-1")], Err(400)),
        ([Some("subscribe"), Some("right"), Some("١٢")], Err(400)),
        ([Some("subscribe"), Some("right"), Some(&long)], Err(400)),
    ];
    for ([mode, token, challenge], answer) in cases {
        let found = verify_handshake(mode, token, challenge, &expected);
        let found = found.as_deref().map_err(HandshakeError::http_status);
        assert_eq!(found, answer, "{mode:?} {token:?} {challenge:?}");
    }
    assert_eq!(
        verify_handshake(Some("subscribe"), Some(""), Some("1"), &[secret("")]),
        Err(HandshakeError::WrongToken)
    );
}

#[test]
fn a_parameter_twice_is_refused_and_others_are_ignored() {
    let expected = [secret("right")];
    let pairs = [("hub.mode", "subscribe"), ("hub.verify_token", "right"), ("hub.challenge", "7"), ("x", "y")];
    assert_eq!(verify_handshake_query(pairs, &expected).as_deref(), Ok("7"));
    let again = [
        (("hub.mode", "subscribe"), 403),
        (("hub.verify_token", "right"), 403),
        (("hub.verify_token", "wrong"), 403),
        (("hub.challenge", "7"), 400),
    ];
    for (doubled, status) in again {
        let found = verify_handshake_query(pairs.into_iter().chain([doubled]), &expected);
        assert_eq!(found.unwrap_err().http_status(), status, "{doubled:?}");
    }
    let stranger = [("hub.mode", "subscribe"), ("hub.challenge", "7"), ("hub.challenge", "7")];
    assert_eq!(verify_handshake_query(stranger, &expected).unwrap_err().http_status(), 403);
}

fn signed(secret: &str, payload: &[u8]) -> String {
    let payload = URL_SAFE_NO_PAD.encode(payload);
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap_or_else(|_| unreachable!());
    mac.update(payload.as_bytes());
    format!("{}.{payload}", URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes()))
}

#[test]
fn a_signed_request_is_verified_before_it_is_read() {
    let secrets = [secret("s")];
    let now = 1_767_225_600;
    let body = |change: serde_json::Value| {
        let mut body = json!({"algorithm":"HMAC-SHA256","issued_at":now - 5,"expires":0,"user_id":"218471"});
        body.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        body.to_string()
    };
    let good = signed("s", body(json!({})).as_bytes());
    let read = parse_signed_request(&good, &secrets, now).unwrap();
    assert_eq!((read.user_id.as_str(), read.issued_at_s, read.expires_s), ("218471", Some(now - 5), None));
    let numeric = signed("s", body(json!({"user_id":218471})).as_bytes());
    assert_eq!(parse_signed_request(&numeric, &secrets, now).unwrap().user_id, "218471");
    let padded = format!("{}=.{}", good.split_once('.').unwrap().0, good.split_once('.').unwrap().1);
    assert!(parse_signed_request(&padded, &secrets, now).is_ok());

    use SignedRequestError as E;
    let tampered =
        format!("{}.{}", good.split_once('.').unwrap().0, URL_SAFE_NO_PAD.encode(body(json!({"user_id":"1"}))));
    let cases = [
        (signed("other", body(json!({})).as_bytes()), E::Mismatch),
        (tampered, E::Mismatch),
        (signed("s", body(json!({"algorithm":"HMAC-SHA1"})).as_bytes()), E::WrongAlgorithm),
        (signed("s", body(json!({"algorithm":null})).as_bytes()), E::WrongAlgorithm),
        (signed("s", body(json!({"expires":now})).as_bytes()), E::Expired),
        (signed("s", body(json!({"user_id":""})).as_bytes()), E::NoUser),
        (signed("s", b"[]"), E::Malformed),
        (signed("s", b"not json"), E::Malformed),
        (good.replace('.', ""), E::Malformed),
        (format!("!!.{}", good.split_once('.').unwrap().1), E::Malformed),
        (".".to_owned(), E::Mismatch),
        (String::new(), E::Malformed),
        ("a".repeat(20_000), E::TooLarge),
    ];
    for (field, expected) in cases {
        assert_eq!(parse_signed_request(&field, &secrets, now), Err(expected), "{field:.60}");
    }
}

#[test]
fn the_proof_has_both_forms() {
    // The RFC's vector once more: the token is the message, the app secret the key.
    let proof = appsecret_proof(&secret("Jefe"), &secret("what do ya want for nothing?"));
    assert_eq!(proof, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
    assert_eq!(appsecret_proof_at(&secret("k"), &secret("t"), 17), appsecret_proof(&secret("k"), &secret("t|17")));
}
