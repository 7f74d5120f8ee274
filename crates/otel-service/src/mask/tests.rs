use super::*;

#[test]
fn the_local_part_keeps_two_characters_or_none() {
    for (text, expected) in [
        ("alice@example.com", "al***@example.com"),
        ("ab@example.com", "***@example.com"),
        ("a@example.com", "***@example.com"),
        ("abc@example.com", "ab***@example.com"),
        ("bob+news@mail.example.co.uk", "bo***@mail.example.co.uk"),
        ("jörg@example.de", "jö***@example.de"),
        ("дима@пример.рф", "ди***@пример.рф"),
        ("佐々木@example.jp", "佐々***@example.jp"),
        ("\"john doe\"@example.com", "***@example.com"),
        ("\"j\\\"d\"@example.com", "***@example.com"),
        (
            "{\\\"to\\\": \\\"\\\\\\\"j d\\\\\\\"@example.com\\\"}",
            "{\\\"to\\\": \\\"***@example.com\\\"}",
        ),
        ("root@localhost", "ro***@localhost"),
        ("root@[127.0.0.1]", "ro***@[127.0.0.1]"),
        ("to=alice%40example.com&x=1", "to***%40example.com&x=1"),
        ("to:alice%2540example.com", "to:al***%2540example.com"),
        ("alice%40b%C3%BCcher%2ede", "al***%40b%C3%BCcher%2ede"),
        ("alice@ex%61mple.com", "al***@ex%61mple.com"),
        (
            "Key (email)=(alice@example.com) already exists; see bob@example.org.",
            "Key (email)=(al***@example.com) already exists; see bo***@example.org.",
        ),
        (
            "alice@example.com,bob@example.com",
            "al***@example.com,bo***@example.com",
        ),
        (
            "alice@example.com→bob@example.com",
            "al***@example.com→bo***@example.com",
        ),
        ("{'to':'alice@example.com'}", "{'to':'a***@example.com'}"),
        ("{\"to\":\"alice@example.com\"}", "{\"to\":\"al***@example.com\"}"),
        ("/users/alice@example.com/x", "/u***@example.com/x"),
        ("mailto:alice@example.com?x", "mailto:al***@example.com?x"),
    ] {
        assert_eq!(mask(text), expected, "{text}");
    }
}

#[test]
fn symbols_of_a_local_part_are_masked_with_it() {
    for (text, expected) in [
        ("o'brien@example.com", "o'***@example.com"),
        ("a/b@example.com", "a/***@example.com"),
        ("alice!@example.com", "al***@example.com"),
        ("alice*@example.com", "al***@example.com"),
        ("carla{secret}@x.example", "ca***@x.example"),
        ("carla/secret@x.example", "ca***@x.example"),
        ("carla=secret|x@x.example", "ca***@x.example"),
        ("{}@example.com", "***@example.com"),
        ("😀@example.com", "***@example.com"),
        ("\"\"@example.com", "***@example.com"),
        ("carla.secret***@x.example", "ca***@x.example"),
    ] {
        assert_eq!(mask(text), expected, "{text}");
    }
}

#[test]
fn no_part_of_a_text_with_several_at_signs_or_with_brackets_remains() {
    for (text, expected) in [
        ("foo@alice@example.com", "fo***@example.com"),
        ("foo@al@example.com", "fo***@example.com"),
        ("foo@b.cc@example.com", "fo***@example.com"),
        ("foo@b@cc@x.example", "fo***@x.example"),
        ("foo%40b.cc%40x.example", "fo***%40x.example"),
        ("foo@alice%40example.com", "fo***%40example.com"),
        ("foo%2540alice@example.com", "fo***@example.com"),
        ("foo&#64;alice&#64;x.example", "fo***&#64;al***&#64;x.example"),
        ("foo\u{ff20}alice@x.example", "fo***@x.example"),
        ("@alice@social.example", "@al***@social.example"),
        ("celery@alice@x.example", "ce***@x.example"),
        ("foo@alice+new@mailhost", "fo***@al***@mailhost"),
        ("foo@al=ice@x.example", "fo***@al***@x.example"),
        ("a@b.cc|bob@x.example", "***@b.cc|b***@x.example"),
        ("(alice)@example.com", "(al***)@example.com"),
        ("<alice>@example.com", "<al***>@example.com"),
        ("alice[@]example.com", "al***[@]example.com"),
        ("alice@<mail-host.example>", "al***@<mail-host.example>"),
        ("alice@[mail-host.example]", "al***@[mail-host.example]"),
        ("alice(@)localhost", "al***(@)localhost"),
        ("foo@(alice)@example.com", "foo@(al***)@example.com"),
        (
            "https://alice%40b.example:pw@h.example/x",
            "https://***%40b.example:***@h.example/x",
        ),
        ("https://alice%40b.example@h.example/x", "https://***@h.example/x"),
        ("https://alice@b.example@h.example/x", "https://***@h.example/x"),
        ("https://alice:p@ss@h.example/x", "https://alice:***@h.example/x"),
        ("require(@scope/name)", "require(@scope/name)"),
        (
            "/node_modules/@scope/name@7.0.1",
            "/node_modules/@scope/name@7.0.1",
        ),
        ("/node_modules/@scope/name@7.0.10", "/node_modules/@sc***@7.0.10"),
    ] {
        assert_eq!(mask(text), expected, "{text}");
        assert_eq!(mask(expected), expected);
    }
}

#[test]
fn every_form_of_the_at_sign_and_of_a_domain_is_recognised() {
    for (text, expected) in [
        ("carla.secret\u{200b}@x.example", "ca***@x.example"),
        ("carla.se\u{ad}cret@x.example", "ca***@x.example"),
        ("carla.secret@@h.example", "ca***@@h.example"),
        ("carla.secret%40@h.example", "ca***@h.example"),
        ("carla.secret\u{ff20}h.example", "ca***\u{ff20}h.example"),
        ("carla.secret\u{fe6b}h.example", "ca***\u{fe6b}h.example"),
        ("carla.secret%EF%BC%A0h.example", "ca***%EF%BC%A0h.example"),
        ("carla.secret=40h.example", "ca***=40h.example"),
        ("email=40Zx.cc%40h.example", "em***%40h.example"),
        (
            "email=40Zx%2D%40%5B192%2E0%2E2%2E1%5D",
            "em***%40%5B192%2E0%2E2%2E1%5D",
        ),
        ("carla.secret\\x40h.example", "ca***\\x40h.example"),
        ("carla.secret\\u0040h.example", "ca***\\u0040h.example"),
        ("carla.secret\\\\u0040h.example", "ca***\\\\u0040h.example"),
        ("carla.secret&#64;h.example", "ca***&#64;h.example"),
        ("carla.secret&#x40;h.example", "ca***&#x40;h.example"),
        ("carla.secret&amp;#064;h.example", "ca***&amp;#064;h.example"),
        ("carla.secret&commat;h.example", "ca***&commat;h.example"),
        ("carla.secret@h\u{3002}example", "ca***@h\u{3002}example"),
        ("carla.secret@h\u{ff0e}example", "ca***@h\u{ff0e}example"),
        ("carla.secret@h\u{ff61}example", "ca***@h\u{ff61}example"),
        ("carla.secret@mailhost", "ca***@mailhost"),
        ("carla+news@mailhost", "ca***@mailhost"),
        ("carla.worker@mailhost", "ca***@mailhost"),
        ("carla@10.0.0.1", "ca***@10.0.0.1"),
        ("carla@2001:db8::1", "ca***@2001:db8::1"),
        ("carla@[IPv6:2001:db8::1]", "ca***@[IPv6:2001:db8::1]"),
        ("carla%40%5B192%2E0%2E2%2E1%5D&", "ca***%40%5B192%2E0%2E2%2E1%5D&"),
        ("carla%40192%2E0.2%2e1.", "ca***%40192%2E0.2%2e1."),
        ("carla@2001%3Adb8%3A%3A1 x", "ca***@2001%3Adb8%3A%3A1 x"),
        ("carla@LocalHost", "ca***@LocalHost"),
        ("carla.secret\\100h.example", "ca***\\100h.example"),
        ("carla.secret\\U00000040h.example", "ca***\\U00000040h.example"),
        ("carla.secret\\u{0040}h.example", "ca***\\u{0040}h.example"),
        ("carla.secret\\x{40}h.example", "ca***\\x{40}h.example"),
        ("carla.secret%ef%Bc%A0h.example", "ca***%ef%Bc%A0h.example"),
        ("carla.secret%EF%B9%ABh.example", "ca***%EF%B9%ABh.example"),
        (
            "carla.secret%25EF%25BC%25A0h.example",
            "ca***%25EF%25BC%25A0h.example",
        ),
        ("carla.secret&#64h.example", "ca***&#64h.example"),
        ("carla.secret&#x40h.example", "ca***&#x40h.example"),
        ("git@host", "gi***@host"),
        ("git@host:acme/shop.git", "gi***@host:acme/shop.git"),
        ("postgres://shop@db/shop", "postgres://***@db/shop"),
        (
            "postgres://shop:hunter2@db.example/shop",
            "postgres://shop:***@db.example/shop",
        ),
        ("redis://:hunter2@cache:6379/0", "redis://:***@cache:6379/0"),
        ("amqp://shop:hunt%40er2@rabbit/v", "amqp://shop:***@rabbit/v"),
        (
            "https://shop:a:hunter2@192.0.2.1/",
            "https://shop:a:***@192.0.2.1/",
        ),
        ("http://h/a to:alice@x.example", "http://h/a to:al***@x.example"),
        ("name@2x.png", "na***@2x.png"),
        (
            "git@github.example:acme/shop.git",
            "gi***@github.example:acme/shop.git",
        ),
    ] {
        assert_eq!(mask(text), expected, "{text}");
    }
}

#[test]
fn tokens_are_redacted_in_any_text() {
    const JWT: &str = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiI3IiwiZSI6ImFAYi5jYyJ9.q2VjcmV0-c2ln_bmF0dXJl";
    for (before, after) in [
        ("", ""),
        ("t=", "&page=2"),
        ("/reset/", "/confirm"),
        ("(", ")"),
        ("the token%20", " is expired"),
        ("{\"token\":\"", "\"}"),
        ("Bearer ", ""),
        ("authorization: bearer%20", ";"),
        ("a@example.com ", ""),
    ] {
        let masked = mask(&format!("{before}{JWT}{after}")).into_owned();
        let before = mask(before);
        assert_eq!(masked, format!("{before}REDACTED{after}"));
    }
    // Without the signature, and a dot that is percent-encoded.
    assert_eq!(mask("eyJhbGciOiJIUzI1NiJ9"), "REDACTED");
    assert_eq!(mask("x eyJhbGciOiJIUz.eyJzdWIiOi%2Eabc y"), "x REDACTED y");
    for (text, expected) in [
        (
            "Authorization: Bearer mF_9.B5f-4.1JqM",
            "Authorization: Bearer REDACTED",
        ),
        ("BEARER  abc/def+g==", "BEARER  REDACTED"),
        ("Bearer+abc123&x=1", "Bearer+REDACTED&x=1"),
        ("Bearer token-123", "Bearer REDACTED"),
        ("Bearer%09abc123", "Bearer%09REDACTED"),
        ("bearer%3A%20abc123", "bearer%3A%20REDACTED"),
        ("Bearer\u{a0}abc123", "Bearer\u{a0}REDACTED"),
        (
            "Authorization: Basic dXNlcjpodW50ZXIy",
            "Authorization: Basic REDACTED",
        ),
        ("basic dXNlcjpodW50ZXI=;", "basic REDACTED;"),
        ("Basic%20dXNlcjpodW50ZXI%3D&x", "Basic%20REDACTED&x"),
        ("dckr_pat_16C7e42F292c6912E7710c838347", "dckr_pat_REDACTED"),
        ("glptt-16C7e42F292c6912E7710c838347", "glptt-REDACTED"),
        ("gsk_16C7e42F292c6912E7710c838347", "gsk_REDACTED"),
        (
            "k: -----BEGIN EC PRIVATE KEY-----\nProc-Type: 4\nMC4CAQ\n-----END EC PRIVATE KEY-----",
            "k: -----BEGIN EC PRIVATE KEY-----REDACTED-----END EC PRIVATE KEY-----",
        ),
        (
            "-----BEGIN PRIVATE KEY-----\\nMC4CAQ",
            "-----BEGIN PRIVATE KEY-----REDACTED",
        ),
        ("key whsec_MfKQ9r8GKYqrTwjU", "key whsec_REDACTED"),
        ("sk_live_4eC39HqLyjWDarjtT1", "sk_REDACTED"),
        ("/sk_test_abc123/x", "/sk_REDACTED/x"),
        ("ghp_16C7e42F292c6912E7710c838347Ae178B4a", "ghp_REDACTED"),
        ("AKIAIOSFODNN7EXAMPLE", "AKIAREDACTED"),
        ("xoxb-123456789012-abcdef", "xoxb-REDACTED"),
        ("a\\neyJhbGciOiJIUzI1NiJ9\\n", "a\\nREDACTED\\n"),
    ] {
        assert_eq!(mask(text), expected, "{text}");
        assert_eq!(mask(expected), expected);
    }
}

#[test]
fn words_that_resemble_tokens_are_kept() {
    for text in [
        "a Bearer token is required",
        "WWW-Authenticate: Bearer realm=\"api\"",
        "bearer authentication.",
        "the bearer",
        "Basic authentication is off",
        "basic usage",
        "WWW-Authenticate: Basic realm=\"api\"",
        "Basic dXNlcg==",
        "-----BEGIN CERTIFICATE-----\nMC4CAQ\n-----END CERTIFICATE-----",
        "MonkeyJumpsOverTheFence",
        "eyJ",
        "disk_usage_in_bytes",
        "risk_of_failure_in_percent",
        "sk_SK",
        "first-post-sk-2024",
        "first-post-sk-or-how-to-keep-keys-2024-1a2b3c",
        "/articles/what-glpat-and-xoxb-are-good-for-in-2024",
        "AKIA",
        "hf_hub",
        "npm_config_cache",
    ] {
        assert!(
            matches!(mask(text), Cow::Borrowed(same) if same == text),
            "{text}"
        );
    }
}

/// Every candidate is recognised at every position, whatever the length of the text.
#[test]
fn the_first_pass_misses_nothing() {
    for found in [
        "abc@de.fg",
        "abc%40de.fg",
        "abc=40de.fg",
        "abc&#64;de.fg",
        "a.b\u{ff20}de.fg",
        "a.b\\x40de.fg",
        "eyJhbGciOiJI",
        "Bearer abcdef",
        "bearer\tabcdef",
        "AKIAIOSFODNN7EXAMPLE",
        "xoxb-1234567890",
        "sk_abcdef",
        "glpat-aaaaaaaaaaaaaaaaaaaa",
        "sk-aaaaaaaaaaaaaaaaaaaaaaaa",
        "basic dXNlcjpodW50ZXIy",
        "-----BEGIN PRIVATE KEY-----a",
    ] {
        for before in 0..40 {
            for after in 0..40 {
                let text = format!("{}{found}{}", " ".repeat(before), " ".repeat(after));
                assert_ne!(mask(&text), text);
            }
        }
    }
}

#[test]
fn text_without_an_address_is_not_copied() {
    for text in [
        "",
        "@",
        "plain",
        "celery@worker",
        "worker-1@host",
        "hostname=celery@host",
        "/app/node_modules/@babel/core",
        "https://example.org/@alice",
        "(celery@host)",
        "a @ b.com",
        "user@",
        "x@.com",
        "100%40",
        "100%40x",
        "%",
        "a%",
        "%4",
        "a@b.c",
        "a@-.com",
        "a@b%zz.com",
        "a@b%é.com",
        "@alice.example.com",
    ] {
        assert!(
            matches!(mask(text), Cow::Borrowed(same) if same == text),
            "{text}"
        );
    }
}

#[test]
fn masking_time_is_linear_in_the_number_of_at_signs() {
    // Visiting an at sign more than once would take minutes.
    for part in [
        "@", "%40", "a@", "a%40", "a%40b.", "\"@", "a%40b.cc", "*@b.cc", "a@b-", "a@(", "a@b@",
    ] {
        let text = part.repeat(30_000);
        assert!(mask(&text).len() >= part.len(), "{part}");
    }
}
